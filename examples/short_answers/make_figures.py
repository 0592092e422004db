"""Made figures in the manner of a microscope's, with questions and short answers.

    python examples/short_answers/make_figures.py figures

writes into the folder `figures`: `train.csv`, `held.csv` and `test.csv` with the columns index, image, question,
answer and category; and the images. All is drawn from a seed: no figure shows anything real, and no answer is a medical
statement.
"""

import argparse
import csv
import math
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageDraw

SIZE = 96  # pixels
STAINS = {"purple": (140, 60, 170), "blue": (40, 90, 210), "green": (50, 160, 70), "red": (214, 40, 40)}
NUCLEUS = (25, 25, 28)
FORMS = {"round": (0.17, 0.17), "rod": (0.21, 0.09)}  # half axes of a cell, share of the image

QUESTIONS = {
    "count": "How many cells are there?",
    "stain": "What color is the stain?",
    "form": "What form do the cells have?",
    "nucleus": "Do the cells have a nucleus?",
}


def figure(rng: Random) -> tuple[Image.Image, dict[str, str]]:
    """One figure, and the answers to `QUESTIONS`."""
    stain, form, has_nucleus = rng.choice(list(STAINS)), rng.choice(list(FORMS)), rng.random() < 0.5
    count = rng.randint(1, 4)
    level = rng.randint(215, 250)
    image = Image.new("RGB", (SIZE, SIZE), (level, level - rng.randint(0, 12), level))
    pen = ImageDraw.Draw(image)
    for cell in rng.sample(range(4), count):  # of a grid of 2 x 2, so that no two overlap
        x, y = ((place + 0.5) / 2 + rng.uniform(-0.04, 0.04) for place in divmod(cell, 2))
        color = tuple(max(0, min(255, value + rng.randint(-15, 15))) for value in STAINS[stain])
        angle = rng.uniform(0, math.pi)
        pen.polygon(outline(x, y, *FORMS[form], angle), fill=color)
        if has_nucleus:
            pen.polygon(outline(x, y, 0.07, 0.07, 0), fill=NUCLEUS)
    noise = np.random.default_rng(rng.getrandbits(32)).integers(-6, 7, (SIZE, SIZE, 1))
    image = Image.fromarray(np.clip(np.asarray(image, np.int16) + noise, 0, 255).astype(np.uint8))
    return image, {
        "count": str(count),
        "stain": stain,
        "form": form,
        "nucleus": "yes" if has_nucleus else "no",
    }


def outline(x: float, y: float, a: float, b: float, angle: float) -> list[tuple[float, float]]:
    """Corners of an ellipse in pixels: its center, half axes and turn are shares of the image, and radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    circle = [(a * math.cos(t), b * math.sin(t)) for t in (2 * math.pi * corner / 40 for corner in range(40))]
    return [(SIZE * (x + u * cos - v * sin), SIZE * (y + u * sin + v * cos)) for u, v in circle]


def write(name: str, count: int, folder: Path) -> None:
    """Write a set of so many figures, a row for each question."""
    with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["index", "image", "question", "answer", "category"])
        for number in range(count):
            image, answers = figure(Random(f"{name} {number}"))
            path = f"images/{name}-{number}.png"
            image.save(folder / path)
            for category, question in QUESTIONS.items():
                rows.writerow([f"{number}-{category}", path, question, answers[category], category])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where rows and images are written")
    parser.add_argument("--train", type=int, default=300, help="figures to train on")
    parser.add_argument("--held", type=int, default=25, help="figures for validation")
    parser.add_argument("--test", type=int, default=75, help="figures to evaluate on")
    arguments = parser.parse_args()
    (arguments.folder / "images").mkdir(parents=True, exist_ok=True)
    for name in ("train", "held", "test"):
        write(name, getattr(arguments, name), arguments.folder)


if __name__ == "__main__":
    main()
