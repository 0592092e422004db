"""Builds the untrained demo checkpoint: tokenizer, configuration, processors, random weights.

The layout is that of the released SmolVLM2 checkpoints, two orders of magnitude smaller.
Needs the reference implementation: `pip install torch torchvision transformers num2words`.
"""

from pathlib import Path
from random import Random

import scenes
import torch
import torchvision_stub  # noqa: F401 - before transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessorPil,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)
from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE

TILE = 32  # pixels; 4 x 4 patches, pixel-shuffled to 2 x 2 image tokens
PATCH = 8
SCALE_FACTOR = 2
LONGEST_EDGE = 64  # 2 x 2 tiles for every picture whose sides differ by less than a factor of two
IMAGE_SEQ_LEN = (TILE // PATCH // SCALE_FACTOR) ** 2
VOCABULARY_SIZE = 576
SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
    "<fake_token_around_image>",
    "<image>",
    "<end_of_utterance>",
]


def corpus() -> list[str]:
    """Everything that the prompts and answers of the scenes are made of."""
    rng = Random(0)
    texts = [*scenes.SYSTEM_PROMPTS, "User: Assistant: System:"] * 50
    for _ in range(1500):
        for task in ("describe", "difference", "direction", "where", "color", "shape", "count"):
            shape = scenes.random_shape(rng)
            texts += [f"User: {rng.choice(scenes.QUESTIONS[task])}", f"Assistant: A {shape.description}."]
        differ = "the color shape size place differs."
        texts.append(f"Assistant: A {shape.description}, then a {shape.description}: {differ}")
        texts.append(f"Assistant: The {shape.color} shape moves {rng.choice(list(scenes.DIRECTIONS))}.")
        texts.append(f" {shape.color.capitalize()}. {shape.place.capitalize()}. A {shape.shape}.")
        texts.append(f" {rng.choice(scenes.COUNTS)}.")
        count = rng.choice(("one", "two", "three", "four", "five", "six"))
        texts.append(
            f"You are provided the following series of {count} frames from a 0:00:05 [H:MM:SS] video.\n"
            "\nFrame from 00:03:"
        )
    return texts


def tokenizer() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        extra_special_tokens={
            "fake_image_token": "<fake_token_around_image>",
            "image_token": "<image>",
            "end_of_utterance_token": "<end_of_utterance>",
            "global_image_token": "<global-img>",
        },
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )


def processor() -> SmolVLMProcessor:
    image_processor = SmolVLMImageProcessorPil(
        size={"longest_edge": LONGEST_EDGE}, max_image_size={"longest_edge": TILE}, do_image_splitting=True
    )
    video_processor = SmolVLMVideoProcessor(
        max_image_size={"longest_edge": TILE},
        video_sampling={"fps": 1, "max_frames": 6, "video_size": {"longest_edge": LONGEST_EDGE}},
    )
    return SmolVLMProcessor(
        image_processor, tokenizer(), video_processor, image_seq_len=IMAGE_SEQ_LEN, chat_template=DEFAULT_CHAT_TEMPLATE
    )


def model(processor: SmolVLMProcessor, seed: int = 0) -> SmolVLMForConditionalGeneration:
    ids = {token: processor.tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    config = SmolVLMConfig(
        image_token_id=ids["<image>"],
        scale_factor=SCALE_FACTOR,
        tie_word_embeddings=False,
        bos_token_id=ids["<|im_start|>"],
        eos_token_id=ids["<end_of_utterance>"],
        pad_token_id=ids["<|im_end|>"],
        vision_config={
            "hidden_size": 128,
            "intermediate_size": 320,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": TILE,
            "patch_size": PATCH,
            "initializer_range": 0.04,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": len(processor.tokenizer),
            "hidden_size": 192,
            "intermediate_size": 448,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 2048,
            "rope_theta": 10000.0,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "bos_token_id": ids["<|im_start|>"],
            "eos_token_id": ids["<end_of_utterance>"],
            "pad_token_id": ids["<|im_end|>"],
            "initializer_range": 0.04,
        },
    )
    torch.manual_seed(seed)
    network = SmolVLMForConditionalGeneration(config)
    network.generation_config.eos_token_id = ids["<end_of_utterance>"]
    network.generation_config.pad_token_id = ids["<|im_end|>"]
    network.generation_config.bos_token_id = ids["<|im_start|>"]
    return network


def save(network: SmolVLMForConditionalGeneration, processor: SmolVLMProcessor, folder: Path) -> None:
    """Write the checkpoint in bfloat16, as `from_pretrained` reads it."""
    import copy

    copy.deepcopy(network).to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
