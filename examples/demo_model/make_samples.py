"""Draws the sample pictures and the sample clip that the package ships beside the demo model.

python examples/demo_model/make_samples.py mlx_smolvlm/demo
"""

import sys
from pathlib import Path
from random import Random

import scenes

SIZE = (320, 320)
PAPER = (236, 234, 228)


def shape(size: str, color: str, kind: str, place: str) -> scenes.Shape:
    x, y = scenes.PLACES[place]
    return scenes.Shape(size, color, kind, place, x, y, sum(scenes.SIZES[size]) / 2, 0.0)


def main() -> None:
    folder = Path(sys.argv[1])
    pictures = {
        "picture.png": shape("large", "red", "circle", "at the top left"),
        "first.png": shape("large", "green", "star", "in the center"),
        "second.png": shape("large", "purple", "star", "in the center"),
    }
    for name, content in pictures.items():
        scenes.draw([content], SIZE, PAPER, Random(0)).save(folder / name, optimize=True)
    seed = next(
        seed
        for seed in range(1000)
        if (clip := scenes.clip(Random(seed), full=True)).turns[0][2] == "The blue shape moves to the right."
        and clip.duration >= 5
    )
    scenes.write_clip(scenes.clip(Random(seed), full=True), folder / "clip.mp4")


if __name__ == "__main__":
    main()
