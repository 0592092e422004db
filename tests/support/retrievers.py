"""Tiny ColIdefics3 checkpoints: that of the goldens, rebuilt from its seeds, and one of the other tests' geometry."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from .checkpoints import weight_shapes, write_checkpoint

GOLDENS = Path(__file__).parent.parent / "goldens" / "colsmol"
VOCAB_SIZE, FIRST_ADDED = 49280, 49152  # ids of the 256M models
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def write_retriever(folder: Path, *, size: int = 128, linear: bool = True, architecture: str = "ColIdefics3") -> Path:
    """A checkpoint of the geometry `smolvlm_256m` without a head, and with `linear` unless that is left out."""
    write_checkpoint("smolvlm_256m", folder)
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    random, hidden = np.random.RandomState(5), weights["model.text_model.norm.weight"].shape[0]
    if linear:
        weights["linear.weight"] = random.uniform(-0.3, 0.3, (size, hidden)).astype(np.float32)
        weights["linear.bias"] = random.uniform(-0.1, 0.1, size).astype(np.float32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    edit_json(folder / "config.json", model_type="idefics3", architectures=[architecture])
    return folder


def edit_json(file: Path, **fields) -> None:
    """Change fields of a JSON file."""
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content | fields), encoding="utf-8")


def write_golden_retriever(folder: Path) -> tuple[Path, Path]:
    """The base and the adapter that the goldens were recorded with; the weights' digests are checked.

    Copied from no model: weights are random, of the 256M models' shape with a narrow body.
    """
    base, adapter = folder / "base", folder / "adapter"
    config = write_narrow_files(base, "ColIdefics3", "idefics3")
    shapes = in_drawing_order(weight_shapes(config | {"tie_word_embeddings": True}))
    shapes |= {"linear.weight": (128, 192), "linear.bias": (128,)}
    random = np.random.default_rng(100)
    _write(base / "model.safetensors", {name: golden_tensor(name, shape, random) for name, shape in shapes.items()})
    _write_golden_adapter(adapter, shapes)
    return base, adapter


def write_narrow_files(base: Path, architecture: str, model_type: str) -> dict:
    """All but the weights of a checkpoint of the 256M models with a narrow body; returns the configuration."""
    base.mkdir(parents=True)
    text = {
        "model_type": "llama",
        "hidden_size": 192,
        "intermediate_size": 320,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "rope_theta": 100000.0,
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
    }
    vision = {
        "hidden_size": 96,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 128,
        "patch_size": 16,
    }
    config = {
        "architectures": [architecture],
        "model_type": model_type,
        "text_config": text,
        "vision_config": vision,
        "scale_factor": 4,
        "image_token_id": 49190,
        "tie_word_embeddings": False,
    }
    files = {
        "config.json": config,
        "tokenizer_config.json": {"bos_token": "<|im_start|>", "eos_token": "<end_of_utterance>"},
        "preprocessor_config.json": {
            "do_image_splitting": True,
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
            "max_image_size": {"longest_edge": 128},
            "resample": 1,
            "rescale_factor": 1 / 255,
            "size": {"longest_edge": 512},
        },
        "processor_config.json": {"image_seq_len": 4},
    }
    for name, content in files.items():
        (base / name).write_text(json.dumps(content), encoding="utf-8")
    golden_tokenizer().save(str(base / "tokenizer.json"))
    return config


def golden_tokenizer() -> Tokenizer:
    """The stored one, with the words that stand between its own and the added tokens."""
    content = json.loads((GOLDENS / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = content["model"]["vocab"]
    for number in range(len(vocab), FIRST_ADDED):
        vocab[f"\u0120filler{number}"] = number
    return Tokenizer.from_str(json.dumps(content))


def in_drawing_order(plain: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes in the order in which the weights were drawn: the two norms of a layer of the decoder first."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in plain.items():
        after = name.replace("post_attention_layernorm", "input_layernorm")
        if after == name:
            shapes[name] = shape
        if name.endswith("input_layernorm.weight"):
            shapes[name.replace("input_layernorm", "post_attention_layernorm")] = shape
    return shapes


def golden_tensor(name: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    drawn = random.standard_normal(shape, dtype=np.float32)
    if len(shape) == 1:
        if "norm" in name and name.endswith("weight"):
            return 1 + 0.1 * drawn
        return (0.1 if name == "linear.bias" else 0.02) * drawn
    fixed = {"embed_tokens": 1.0, "position_embedding": 0.5}
    relative = 3.0 if name.startswith("lm_head") else 1.2
    scale = next((value for part, value in fixed.items() if part in name), relative / math.sqrt(math.prod(shape[1:])))
    return (scale * drawn).astype(np.float32)


def _write_golden_adapter(folder: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    folder.mkdir()
    random, tensors, rank = np.random.default_rng(101), {}, 8
    endings = tuple(f".{projection}.weight" for projection in PROJECTIONS)
    for name in [name for name in shapes if ".text_model." in name and name.endswith(endings)]:
        rows, width = shapes[name]
        module = f"base_model.model.{name.removesuffix('.weight')}"
        a = random.standard_normal((rank, width), dtype=np.float32) / np.float32(math.sqrt(width))
        b = random.standard_normal((rows, rank), dtype=np.float32) * np.float32(0.2 / math.sqrt(rank))
        tensors |= {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
    _write(folder / "adapter_model.safetensors", dict(sorted(tensors.items())))
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, "base_model_name_or_path": str(folder.parent / "base")}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")


def _write(file: Path, tensors: dict[str, np.ndarray]) -> None:
    """A file whose digest is that of the goldens."""
    expected = json.loads((GOLDENS / "expected.json").read_text(encoding="utf-8"))["checksums"]
    assert write_in_order(file, tensors) == expected[f"{file.parent.name}/{file.name}"]


def write_in_order(file: Path, tensors: dict[str, np.ndarray]) -> str:
    """A safetensors file, its tensors in this order; returns its SHA-256."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, array in tensors.items():
        end = offset + array.nbytes
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join(
        [len(text).to_bytes(8, "little"), text, *(np.ascontiguousarray(array) for array in tensors.values())]
    )
    file.write_bytes(data)
    return hashlib.sha256(data).hexdigest()
