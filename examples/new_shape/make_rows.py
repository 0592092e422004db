"""Rows that teach the demo model a shape that it does not know, the heart, and a new style of answer.

    python examples/new_shape/make_rows.py ROWS

writes into the folder ROWS: `train.jsonl` with 200 pictures of hearts and 400 of the world that the model knows, so
that it does not forget it; `held.jsonl` with 100 other hearts; and the pictures. With `--labels 20`, there are 20
pictures of known shapes to train on, and 10 to hold, all with the new style of answer, which is learned quickly.
"""

import argparse
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

sys.path.append(str(Path(__file__).parents[1] / "demo_model"))

import scenes

STYLE = "Label the picture."
KNOWN_TASKS = ("describe", "color", "shape", "where", "count", "number", "difference")


def heart(shape: scenes.Shape, width: int, height: int) -> list[tuple[float, float]]:
    """Corners of a heart in pixels."""
    points = []
    for number in range(40):
        t = 2 * math.pi * number / 40
        x = 16 * math.sin(t) ** 3 / 15
        y = -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 15
        points.append(
            (
                x * math.cos(shape.angle) - y * math.sin(shape.angle),
                x * math.sin(shape.angle) + y * math.cos(shape.angle),
            )
        )
    reach = shape.radius * min(width, height)
    return [(shape.x * width + reach * x, shape.y * height + reach * y) for x, y in points]


def heart_scene(rng: Random, task: str) -> scenes.Scene:
    """A picture of a heart, with a question and its answer."""
    shape = replace(scenes.random_shape(rng), shape="heart")
    known_outline, scenes.outline = scenes.outline, heart
    try:
        image = scenes.draw([shape], scenes.canvas_size(rng), scenes.background(rng), rng)
    finally:
        scenes.outline = known_outline
    return scenes.Scene("picture", [image], [turn(rng, shape, task)], [], 0.0)


def known_scene(rng: Random, task: str) -> scenes.Scene:
    """A picture of the world that the model knows."""
    if task != "label":
        return scenes.scene_for(rng, task)
    shape = scenes.random_shape(rng)
    image = scenes.draw([shape], scenes.canvas_size(rng), scenes.background(rng), rng)
    return scenes.Scene("picture", [image], [turn(rng, shape, task)], [], 0.0)


def turn(rng: Random, shape: scenes.Shape, task: str) -> tuple[str, str, str]:
    """A question about a shape: (task, question, answer)."""
    if task == "label":
        return task, STYLE, f"{shape.shape}, {shape.color}, {shape.size}"
    answer = f"A {shape.shape}." if task == "shape" else f"A {shape.description}."
    return task, rng.choice(scenes.QUESTIONS[task]), answer


def write(name: str, made: list[scenes.Scene], folder: Path) -> None:
    """Write rows, in the form of prompt and completion, and their pictures."""
    lines = []
    for number, scene in enumerate(made):
        names = [f"images/{name}-{number}-{place}.png" for place in range(len(scene.images))]
        for image, path in zip(scene.images, names, strict=True):
            image.save(folder / path)
        _, question, answer = scene.turns[0]
        lines.append(json.dumps({"question": question, "answer": answer, "images": names}))
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where rows and pictures are written")
    parser.add_argument("--hearts", type=int, default=200, help="pictures of hearts to train on")
    parser.add_argument("--known", type=int, default=400, help="pictures of what the model knows")
    parser.add_argument("--labels", type=int, help="known shapes in the new style, in the place of all others")
    arguments = parser.parse_args()
    (arguments.folder / "images").mkdir(parents=True, exist_ok=True)
    if arguments.labels:
        for name, count in (("train", arguments.labels), ("held", 10)):
            made = [known_scene(Random(f"label {name} {number}"), "label") for number in range(count)]
            write(name, made, arguments.folder)
        return
    hearts = [heart_scene(Random(f"heart {n}"), ("shape", "describe", "label")[n % 3]) for n in range(arguments.hearts)]
    tasks = (*KNOWN_TASKS, "label")
    known = [known_scene(Random(f"known {n}"), tasks[n % len(tasks)]) for n in range(arguments.known)]
    write("train", hearts + known, arguments.folder)
    write(
        "held",
        [heart_scene(Random(f"held {n}"), ("shape", "describe", "label")[n % 3]) for n in range(100)],
        arguments.folder,
    )


if __name__ == "__main__":
    main()
