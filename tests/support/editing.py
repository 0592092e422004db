"""Copies of the test checkpoints, changed: what the tests of bad and unusual folders share."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

WEIGHTS = "model.safetensors"


def copied(source: Path, target: Path) -> Path:
    """A copy of a checkpoint folder, to be changed; returns `target`."""
    return Path(shutil.copytree(source, target))


def read_config(folder: Path) -> dict[str, Any]:
    """A checkpoint's config.json."""
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def set_field(path: Path, value: object, *keys: str) -> None:
    """Set a field of a JSON file by its keys from the outside in; `...` deletes it."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    path.write_text(json.dumps(content), encoding="utf-8")


def change_weights(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Apply a function to the tensors of an unsharded checkpoint, in place."""
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
