"""A random checkpoint with granite-docling's own configuration, tokens and template, on which the goldens were made.

Only the two towers are smaller. The weights are numpy's normal numbers in the order of the names below; their digest is
in the golden file, so that other numbers are noticed.
"""

import hashlib
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

GOLDENS = Path(__file__).parent.parent / "goldens"
IMAGES = GOLDENS / "documents"
SEED = 100
TEXT = {
    "hidden_size": 192,
    "intermediate_size": 320,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 64,
}
VISION = {"hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4}


@cache
def golden() -> dict[str, Any]:
    """The golden file."""
    return json.loads((GOLDENS / "granite_docling.json").read_text(encoding="utf-8"))


def write_granite_checkpoint(folder: Path, *, has_weights: bool = True) -> Path:
    """Write the checkpoint into `folder`, which is made; without weights it is good for a processor alone."""
    folder.mkdir(parents=True)
    config = json.loads(json.dumps(golden()["files"]["config.json"]))
    config["text_config"] |= TEXT | {"dtype": "float32"}
    config["vision_config"] |= VISION
    config["dtype"] = "float32"
    files = golden()["files"] | {"config.json": config, "tokenizer.json": golden()["tokenizer"]}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(golden()["chat_template"], encoding="utf-8")
    if has_weights:
        save_file(_weights(config), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def weights_digest(folder: Path) -> str:
    """SHA-256 of the weights alone, in the order of their names."""
    from safetensors.numpy import load_file

    digest = hashlib.sha256()
    for _, array in sorted(load_file(folder / "model.safetensors").items()):
        digest.update(np.ascontiguousarray(array, "<f4").tobytes())
    return digest.hexdigest()


def _weights(config: dict[str, Any]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(SEED)
    return {name: _tensor(name, shape, random) for name, shape in _shapes(config)}


def _tensor(name: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Sharp logits, so that the best token stands clear; embeddings are small, so that no answer repeats its prompt."""
    numbers = random.standard_normal(shape, dtype=np.float32)
    if len(shape) == 1:
        if name == "model.text_model.norm.weight":
            return (4 + 0.4 * numbers).astype(np.float32)
        is_scale = "norm" in name and name.endswith("weight")
        return (1 + 0.1 * numbers if is_scale else 0.02 * numbers).astype(np.float32)
    if "embed_tokens" in name or "position_embedding" in name:
        return ((0.05 if "embed_tokens" in name else 0.5) * numbers).astype(np.float32)
    scale = 2.0 if "text_model" in name else 0.3 if "connector" in name else 1.2
    return ((scale / math.sqrt(math.prod(shape[1:]))) * numbers).astype(np.float32)


def _shapes(config: dict[str, Any]) -> list[tuple[str, tuple[int, ...]]]:
    hidden, inner, heads_width = TEXT["hidden_size"], TEXT["intermediate_size"], TEXT["head_dim"]
    shapes = [("model.text_model.embed_tokens.weight", (config["text_config"]["vocab_size"], hidden))]
    for layer in range(TEXT["num_hidden_layers"]):
        block = f"model.text_model.layers.{layer}"
        shapes += [(f"{block}.{norm}_layernorm.weight", (hidden,)) for norm in ("input", "post_attention")]
        shapes += [(f"{block}.self_attn.{name}_proj.weight", (out, hidden)) for name, out in (
            ("q", hidden), ("k", heads_width), ("v", heads_width), ("o", hidden))]  # fmt: skip
        shapes += [(f"{block}.mlp.{name}_proj.weight", (inner, hidden)) for name in ("gate", "up")]
        shapes.append((f"{block}.mlp.down_proj.weight", (hidden, inner)))
    shapes.append(("model.text_model.norm.weight", (hidden,)))
    width, inner = VISION["hidden_size"], VISION["intermediate_size"]
    patch = config["vision_config"]["patch_size"]
    tower = "model.vision_model"
    shapes.append((f"{tower}.embeddings.patch_embedding.weight", (width, 3, patch, patch)))
    shapes.append((f"{tower}.embeddings.patch_embedding.bias", (width,)))
    num_patches = (config["vision_config"]["image_size"] // patch) ** 2
    shapes.append((f"{tower}.embeddings.position_embedding.weight", (num_patches, width)))
    for layer in range(VISION["num_hidden_layers"]):
        block = f"{tower}.encoder.layers.{layer}"
        for norm in ("layer_norm1", "layer_norm2"):
            shapes += [(f"{block}.{norm}.{part}", (width,)) for part in ("weight", "bias")]
        for name, rows, columns in (
            *((f"self_attn.{name}", width, width) for name in ("q_proj", "k_proj", "v_proj", "out_proj")),
            ("mlp.fc1", inner, width),
            ("mlp.fc2", width, inner),
        ):
            shapes += [(f"{block}.{name}.weight", (rows, columns)), (f"{block}.{name}.bias", (rows,))]
    shapes += [(f"{tower}.post_layernorm.{part}", (width,)) for part in ("weight", "bias")]
    columns = width * config["scale_factor"] ** 2
    return [*shapes, ("model.connector.modality_projection.proj.weight", (hidden, columns))]
