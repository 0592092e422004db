"""Small training runs: rows, examples of a checkpoint, and the gradients of a step."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

import mlx_smolvlm
from mlx_smolvlm.train.dataset.examples import Example, make_example
from mlx_smolvlm.train.dataset.training_rows import read_rows
from mlx_smolvlm.train.learning.micro_batches import MicroBatches
from mlx_smolvlm.train.learning.trainable import Trainable
from mlx_smolvlm.train.recipe import Recipe

QUESTIONS = (("Hi there", "A red dot."), ("one two three", "four five six seven"), ("What is it?", "It is a line."))


def write_rows(folder: Path, num_images: int = 2) -> Path:
    """Rows of text, then others with one small image each."""
    lines = [{"question": question, "answer": answer} for question, answer in QUESTIONS]
    random = np.random.RandomState(3)
    for number in range(num_images):
        name = f"image{number}.png"
        Image.fromarray(random.randint(0, 256, (40, 30 + 20 * number, 3), np.uint8)).save(folder / name)
        lines.append({"question": "What is this?", "answer": f"Number {number}.", "image": name})
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def examples_of(checkpoint: Path, rows: Path) -> list[Example]:
    """The rows as examples, images in one tile."""
    _, processor = mlx_smolvlm.load(checkpoint, dtype="float32", fuse=False)
    options = mlx_smolvlm.MediaOptions(do_image_splitting=False)
    return [make_example(processor, row, media_options=options) for row in read_rows(rows)]


def trainable_of(checkpoint: Path, *, init_folder: Path | None = None, **options) -> Trainable:
    """A checkpoint in float32 with what a recipe trains."""
    model, _ = mlx_smolvlm.load(checkpoint, dtype="float32", fuse=False)
    return Trainable(model, Recipe(**options), init_folder)


def batch_of(trainable: Trainable, examples: list[Example], rows: list[int], name: str = ""):
    """A micro-batch of some rows."""
    return MicroBatches(trainable, examples, None).of(rows, name)
