"""Rows that teach the demo model a shape that it does not know, the heart, and a new style of answer.

    python examples/new_shape/make_rows.py ROWS

writes into the folder ROWS: `train.jsonl` with 200 images of hearts, each in five or nine variants (as it is, and
mirrored, moved, turned and scaled a little), and with images and clips of the world that the model knows, so that it
does not forget it; `held.jsonl` with 100 other hearts; and the images and clips. With `--labels 20`, there are 20
images of known shapes to train on, and 10 to hold, all with the new style of answer, which is learned quickly.
"""

import argparse
import json
import math
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from random import Random

from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "demo_model"))

import scenes

HEARTS = 200
ASKED = ("shape", "describe", "label", "describe", "shape", "describe", "label", "describe", "shape")  # of variants
VARIANTS = {"small": 9, "large": 5}  # of each heart; small ones are taken for stars and crosses most often
STYLE = "Label the picture."
KNOWN = {  # rows of what the model knows: most of what is easily forgotten
    "describe": 3200,
    "label": 1100,
    "shape": 1300,
    "difference": 1350,
    "count": 450,
    "number": 650,
    "color": 60,
    "where": 60,
    "direction": 100,
}
CLIP_FPS = 4.0  # of files: frames are sampled once in a second


def heart_outline(shape: scenes.Shape, width: int, height: int) -> list[tuple[float, float]]:
    """Corners of a heart in pixels."""
    cos, sin = math.cos(shape.angle), math.sin(shape.angle)
    reach = shape.radius * min(width, height)
    points = []
    for number in range(40):
        t = 2 * math.pi * number / 40
        x = 16 * math.sin(t) ** 3 / 15
        y = -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 15
        points.append((shape.x * width + reach * (x * cos - y * sin), shape.y * height + reach * (x * sin + y * cos)))
    return points


def draw(shape: scenes.Shape, rng: Random) -> Image.Image:
    """A picture of one shape, which may be a heart."""
    known_outline = scenes.outline
    scenes.outline = heart_outline if shape.shape == "heart" else known_outline
    try:
        return scenes.draw([shape], scenes.canvas_size(rng), scenes.background(rng), rng)
    finally:
        scenes.outline = known_outline


def asked(shape: scenes.Shape, image: Image.Image, task: str, rng: Random) -> scenes.Scene:
    """A picture of one shape with a question of the task and its answer."""
    answers = {
        "describe": f"A {shape.description}.",
        "color": f"{shape.color.capitalize()}.",
        "shape": f"A {shape.shape}.",
        "where": f"{shape.place.capitalize()}.",
        "label": f"{shape.shape}, {shape.color}, {shape.size}",
    }
    question = STYLE if task == "label" else rng.choice(scenes.QUESTIONS[task])
    return scenes.Scene("picture", [image], [(task, question, answers[task])], [], 0.0)


def heart_scene(rng: Random, task: str) -> scenes.Scene:
    """Any heart, with a question."""
    shape = replace(scenes.random_shape(rng), shape="heart")
    return asked(shape, draw(shape, rng), task, rng)


def known_scene(rng: Random, task: str) -> scenes.Scene:
    """A scene of the world that the model knows, with a question of any task."""
    if task != "label":
        return scenes.scene_for(rng, task)
    shape = scenes.random_shape(rng)
    return asked(shape, draw(shape, rng), task, rng)


def hearts_to_train(seed: str) -> list[scenes.Scene]:
    """`HEARTS` hearts of all sizes, places and colors, small ones three times as often, with all their variants."""
    kinds = list(product(scenes.SIZES, scenes.PLACES, scenes.COLORS))
    kinds += 2 * [kind for kind in kinds if kind[0] == "small"]
    made = []
    for number, (size, place, color) in enumerate(Random(f"kinds {seed}").sample(kinds * 2, HEARTS)):
        rng = Random(f"heart {seed} {number}")
        while (shape := scenes.random_shape(rng)).size != size or shape.place != place:
            pass
        shape = replace(shape, shape="heart", color=color)
        image = draw(shape, rng)
        for count, task in enumerate(ASKED[: VARIANTS[size]]):
            made.append(asked(*(varied(shape, image, rng) if count else (shape, image)), task, rng))
    return made


def varied(shape: scenes.Shape, image: Image.Image, rng: Random) -> tuple[scenes.Shape, Image.Image]:
    """The same picture, perhaps mirrored, and moved, turned and scaled too little to change another answer."""
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        sides = {"left": "right", "right": "left"}
        shape = replace(shape, place=" ".join(sides.get(word, word) for word in shape.place.split()))
    (width, height), angle, scale = image.size, rng.uniform(-0.06, 0.06), rng.uniform(0.95, 1.05)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    x = (1 - cos + sin) * width / 2 + rng.uniform(-0.03, 0.03) * width
    y = (1 - cos - sin) * height / 2 + rng.uniform(-0.03, 0.03) * height
    matrix, paper = (cos, -sin, x, sin, cos, y), image.getpixel((1, 1))
    return shape, image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=paper)


def known_to_train(task: str, rng: Random) -> scenes.Scene:
    """A known scene; where one shape is named, the smaller of two, since small ones are forgotten first."""
    if task == "direction":
        return scenes.clip(rng, fps=CLIP_FPS, full=True)
    if task not in ("describe", "label", "shape"):
        return known_scene(rng, task)
    shape = min((scenes.random_shape(rng) for _ in range(2)), key=lambda shape: shape.radius)
    return asked(shape, draw(shape, rng), task, rng)


def write(name: str, made: list[scenes.Scene], folder: Path) -> None:
    """Write rows as messages, and their images and clips."""
    lines = []
    for number, scene in enumerate(made):
        messages = scenes.messages(scene, answered=True)
        media = [item for item in messages[0]["content"] if item["type"] != "text"]
        for place, item in enumerate(media):
            item["path"] = f"media/{name}-{number}-{place}.{'mp4' if scene.kind == 'clip' else 'png'}"
            if scene.kind == "clip":
                scenes.write_clip(scene, folder / item["path"])
            else:
                scene.images[place].save(folder / item["path"], compress_level=1)  # grain does not compress
        lines.append(json.dumps({"messages": messages}))
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{path}: {len(lines)} rows")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where rows and images are written")
    parser.add_argument("--labels", type=int, help="known shapes in the new style, in the place of all others")
    parser.add_argument("--seed", default="0", help="of all that is drawn")
    arguments = parser.parse_args()
    seed = arguments.seed
    (arguments.folder / "media").mkdir(parents=True, exist_ok=True)
    if arguments.labels:
        for name, count in (("train", arguments.labels), ("held", 10)):
            made = [known_scene(Random(f"label {name} {number}"), "label") for number in range(count)]
            write(name, made, arguments.folder)
        return
    train = hearts_to_train(seed)
    train += [
        known_to_train(task, Random(f"known {seed} {task} {number}"))
        for task, count in KNOWN.items()
        for number in range(count)
    ]
    write("train", train, arguments.folder)
    held = [heart_scene(Random(f"held {seed} {number}"), ASKED[number % 3]) for number in range(100)]
    write("held", held, arguments.folder)


if __name__ == "__main__":
    main()
