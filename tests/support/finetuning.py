"""Small runs that were recorded with torch, PEFT and TRL: their adapters, rows and options."""

import json
from pathlib import Path

import numpy as np

from mlx_smolvlm.train.recipe import Recipe

from .golden_cases import GOLDENS
from .made_adapters import write_folder, write_peft

SHOWN = 24  # numbers of each tensor that are recorded
RECIPE = Recipe(
    steps=6,
    batch_size=3,
    learning_rate=5e-3,
    schedule="cosine",
    warmup=2,
    weight_decay=0.1,
    max_grad_norm=1.0,
    shuffle=False,
)
PREFERENCES = Recipe(
    steps=3,
    batch_size=3,
    learning_rate=2e-3,
    weight_decay=0.05,
    max_grad_norm=1.0,
    shuffle=False,
    preference=True,
    beta=0.3,
)
_CONNECTOR = "model.connector.modality_projection.proj"


def recorded() -> dict:
    """What the reference found."""
    return json.loads((GOLDENS / "training" / "runs.json").read_text(encoding="utf-8"))


def write_adapter(folder: Path, whole: bool = True) -> Path:
    """LoRA of text and encoder, of two ranks and scales; with `whole` the connector, too, as a whole."""
    text, vision = "model.text_model.layers", "model.vision_model.encoder.layers"
    shapes = {
        f"{text}.0.self_attn.q_proj": (96, 96),
        f"{text}.1.mlp.gate_proj": (160, 96),
        f"{text}.2.mlp.down_proj": (96, 160),
        f"{vision}.1.self_attn.v_proj": (32, 32),
    }
    patterns = {"alpha_pattern": {r"layers\.[01]\.mlp\.gate_proj": 3}, "use_rslora": True}
    write_peft(folder, shapes, rank=3, seed=5, **patterns)
    if whole:
        from safetensors.numpy import load_file

        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        weight = np.random.RandomState(6).standard_normal((96, 512)).astype(np.float32) / 20
        tensors = load_file(folder / "adapter_model.safetensors") | {f"base_model.model.{_CONNECTOR}.weight": weight}
        write_folder(folder, config | {"modules_to_save": ["modality_projection"]}, tensors)
    return folder


def write_preferences(folder: Path) -> Path:
    """Rows with a chosen and a rejected answer: one with an image, one of several turns, one whose answer is empty."""

    def said(role: str, text: str) -> dict:
        return {"role": role, "content": [{"type": "text", "text": text}]}

    asked = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}
    rows = [
        {"prompt": [asked], "images": ["image0.png"], "chosen": "A red dot.", "rejected": "No."},
        {
            "prompt": [said("system", "Be brief."), said("user", "one two")],
            "chosen": "three",
            "rejected": "It is a line.",
        },
        {
            "prompt": [said("user", "Hi"), said("assistant", "Hi there"), said("user", "What is it?")],
            "chosen": "four five",
            "rejected": "",
        },
    ]
    for row in rows:
        row |= {name: [said("assistant", row[name])] for name in ("chosen", "rejected")}
    path = folder / "preferences.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
