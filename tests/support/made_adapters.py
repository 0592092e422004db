"""Adapters for the test checkpoints: written in PEFT's format or mlx-lm's, with random matrices."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from .golden_cases import GOLDENS

CASES = ("plain", "patterns", "dora")
PLAIN = GOLDENS / "adapters" / "plain"
Q = "model.text_model.layers.0.self_attn.q_proj"
GATE = "model.text_model.layers.1.mlp.gate_proj"


def write_peft(folder: Path, shapes: dict[str, tuple[int, int]], *, rank: int = 2, seed: int = 0, **fields) -> Path:
    """A LoRA adapter of layers, by Hugging Face path, with shapes (out, in); alpha is 4. Returns the folder."""
    random = np.random.RandomState(seed)
    tensors = {}
    for module, (out, width) in shapes.items():
        a, b = random.standard_normal((rank, width)) / 10, random.standard_normal((out, rank))
        if module.endswith("embed_tokens"):  # (num_embeddings, dims) is the transposed product
            a, b = random.standard_normal((rank, out)) / 10, random.standard_normal((width, rank))
        names = ("embedding_A", "embedding_B") if module.endswith("embed_tokens") else ("A.weight", "B.weight")
        named = zip(names, (a, b), strict=True)
        tensors |= {f"base_model.model.{module}.lora_{name}": x.astype(np.float32) for name, x in named}
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 4, "target_modules": sorted(shapes)}
    return write_folder(folder, config | fields, tensors)


def write_decoder_adapter(folder: Path, model, seed: int) -> Path:
    """A LoRA adapter of queries and values of a model's first two layers, strong enough to change its answers."""
    text = model.config.text
    rows = {"q_proj": text.num_attention_heads * text.head_dim, "v_proj": text.num_key_value_heads * text.head_dim}
    shapes = {
        f"model.text_model.layers.{layer}.self_attn.{name}": (num_rows, text.hidden_size)
        for layer in (0, 1)
        for name, num_rows in rows.items()
    }
    return write_peft(folder, shapes, seed=seed, lora_alpha=8)


def write_folder(folder: Path, config: dict, tensors: dict[str, np.ndarray]) -> Path:
    """A folder of PEFT's; of mlx-lm's, if the configuration has no peft_type."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    save_file(contiguous, folder / ("adapter_model.safetensors" if "peft_type" in config else "adapters.safetensors"))
    return folder


def peft_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Of an adapter of PEFT's, without the prefix of its names."""
    tensors = load_file(folder / "adapter_model.safetensors")
    return {name.removeprefix("base_model.model."): array for name, array in tensors.items()}
