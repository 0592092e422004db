"""Random checkpoints of the family's geometries, in Hugging Face layout, for machines without the real ones.

Speed depends on shapes and types, not on what the weights are.
"""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from ..files import whole_folder, write_json
from ..model.config import read_model_config
from ..model.smolvlm import SmolVLM
from ..model.weights import PATCH_EMBEDDING_WEIGHT, hf_name
from ..processor.chat_template import FAMILY_TEMPLATE
from .tokenizer import END_OF_UTTERANCE, NUM_MARKERS, make_tokenizer

MAX_FRAMES = 64
CONTEXT = 8192


@dataclass(frozen=True)
class Text:
    """The decoder, in the names of `text_config`."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int


@dataclass(frozen=True)
class Vision:
    """The encoder, in the names of `vision_config`."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    image_size: int
    patch_size: int


@dataclass(frozen=True)
class Geometry:
    """Shapes of a checkpoint; `longest_edge` in pixels; the vocabulary has 128 markers more than `plain_vocab_size`."""

    text: Text
    vision: Vision
    scale_factor: int
    longest_edge: int
    rope_theta: float
    plain_vocab_size: int

    @property
    def vocab_size(self) -> int:
        """Tokens, markers included."""
        return self.plain_vocab_size + NUM_MARKERS

    def with_layers(self, decoder_layers: int | None, encoder_layers: int | None) -> "Geometry":
        """The same with another number of layers; None keeps it."""
        return replace(
            self,
            text=replace(self.text, num_hidden_layers=decoder_layers or self.text.num_hidden_layers),
            vision=replace(self.vision, num_hidden_layers=encoder_layers or self.vision.num_hidden_layers),
        )


_SIGLIP_BASE = Vision(768, 12, 12, 3072, 512, 16)
_SIGLIP_SO400M = Vision(1152, 27, 16, 4304, 384, 14)
GEOMETRIES = {
    "256m": Geometry(Text(576, 30, 9, 3, 1536), _SIGLIP_BASE, 4, 2048, 100_000, 49_152),
    "500m": Geometry(Text(960, 32, 15, 5, 2560), _SIGLIP_BASE, 4, 2048, 100_000, 49_152),
    "2.2b": Geometry(Text(2048, 24, 32, 32, 8192), _SIGLIP_SO400M, 3, 1536, 130_000, 49_152),
    # As many layers and tiles as the 256M, but hardly any arithmetic: what is left is overhead.
    "overhead": Geometry(Text(64, 30, 4, 2, 128), Vision(64, 2, 2, 128, 512, 64), 4, 2048, 100_000, 49_152),
    "tiny": Geometry(Text(64, 2, 4, 2, 128), Vision(32, 2, 2, 64, 64, 16), 2, 256, 100_000, 512),
}


def make_checkpoint(geometry: Geometry, dtype: str, folder: Path) -> Path:
    """Write a checkpoint with random weights of this type into `folder`; one that is there already is kept.

    It appears when it is whole. No answer ends early: the head never chooses an end token or a marker.
    """
    if folder.is_dir():
        return folder
    with whole_folder(folder) as unfinished:
        for name, content in _files(geometry, dtype).items():
            write_json(unfinished / name, content)
        make_tokenizer(geometry.plain_vocab_size).save(str(unfinished / "tokenizer.json"), pretty=False)
        weights = _random_weights(unfinished, geometry, getattr(mx, dtype))
        mx.save_safetensors(str(unfinished / "model.safetensors"), weights, {"format": "pt"})
    return folder


def _random_weights(folder: Path, geometry: Geometry, dtype: mx.Dtype) -> dict[str, mx.array]:
    """By Hugging Face name, evaluated one by one."""
    parameters: Any = tree_flatten(SmolVLM(read_model_config(folder)).parameters())
    weights = {}
    for number, (name, parameter) in enumerate(parameters):
        shape = parameter.shape
        if "norm" in name and name.endswith("weight"):
            array = mx.ones(shape)
        elif name.endswith("bias"):
            array = mx.zeros(shape)
        else:
            fan_in = 1 if "embed_tokens" in name else math.prod(shape[1:])
            width = math.sqrt(3 / fan_in)  # uniform numbers with the deviation 1 / sqrt(fan_in)
            array = mx.random.uniform(-width, width, shape, key=mx.random.key(number))
        if name == "language_model.lm_head.weight":
            array[geometry.plain_vocab_size :] = 0
            array[:3] = 0
        if name == PATCH_EMBEDDING_WEIGHT:
            array = array.transpose(0, 3, 1, 2)  # (out, height, width, in) -> (out, in, height, width)
        weights[hf_name(name)] = mx.contiguous(array.astype(dtype))
        mx.eval(weights[hf_name(name)])
    return weights


def _files(geometry: Geometry, dtype: str) -> dict[str, dict[str, Any]]:
    """The JSON files, every field stated: programs fill gaps differently."""
    text, vision, vocab_size = geometry.text, geometry.vision, geometry.vocab_size
    image_token_id, end_id = geometry.plain_vocab_size + 38, vocab_size - 1
    specials = {"bos_token": "<|im_start|>", "eos_token": END_OF_UTTERANCE, "pad_token": "<|im_end|>"}
    shared = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "max_image_size": {"longest_edge": vision.image_size},
        "resample": 1,
        "rescale_factor": 1 / 255,
        "size": {"longest_edge": geometry.longest_edge},
    }
    sampling = {"fps": 1, "max_frames": MAX_FRAMES, "video_size": {"longest_edge": vision.image_size}}
    return {
        "config.json": {
            "architectures": ["SmolVLMForConditionalGeneration"],
            "model_type": "smolvlm",
            "dtype": dtype,
            "image_token_id": image_token_id,
            "eos_token_id": end_id,
            "pad_token_id": 2,
            "scale_factor": geometry.scale_factor,
            "tie_word_embeddings": False,
            "vocab_size": vocab_size,
            "text_config": asdict(text)
            | {
                "model_type": "llama",
                "head_dim": text.hidden_size // text.num_attention_heads,
                "hidden_act": "silu",
                "max_position_embeddings": CONTEXT,
                "pad_token_id": 2,
                "rms_norm_eps": 1e-5,
                "rope_theta": geometry.rope_theta,
                "tie_word_embeddings": False,
                "vocab_size": vocab_size,
            },
            "vision_config": asdict(vision)
            | {
                "model_type": "smolvlm_vision",
                "hidden_act": "gelu_pytorch_tanh",
                "layer_norm_eps": 1e-6,
                "num_channels": 3,
            },
        },
        "generation_config.json": {"bos_token_id": 1, "eos_token_id": end_id, "pad_token_id": 2},
        "preprocessor_config.json": shared
        | {
            "do_image_splitting": True,
            "image_processor_type": "SmolVLMImageProcessor",
            "processor_class": "SmolVLMProcessor",
            "video_sampling": sampling,
        },
        "processor_config.json": {
            "image_seq_len": (vision.image_size // vision.patch_size // geometry.scale_factor) ** 2,
            "processor_class": "SmolVLMProcessor",
        },
        "tokenizer_config.json": specials
        | {
            "unk_token": "<|endoftext|>",
            "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>",
            "image_token": "<image>",
            "end_of_utterance_token": END_OF_UTTERANCE,
            "extra_special_tokens": {
                "fake_image_token": "<fake_token_around_image>",
                "global_image_token": "<global-img>",
                "image_token": "<image>",
                "end_of_utterance_token": END_OF_UTTERANCE,
            },
            "model_max_length": CONTEXT,
            "processor_class": "SmolVLMProcessor",
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
        "chat_template.json": {"chat_template": FAMILY_TEMPLATE},
    }
