"""Rows that teach the demo model a shape that it does not know, the heart, and a new style of answer.

    python examples/new_shape/make_rows.py ROWS

writes into the folder ROWS: `train.jsonl` with 200 pictures of hearts and 1,000 of the world that the model knows, so
that it does not forget it; `held.jsonl` with 100 other hearts; and the pictures and clips. With `--labels 20`, there
are 20 pictures of known shapes to train on, and 10 to hold, all with the new style of answer, which is learned quickly.
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
HEART_TASKS = ("shape", "describe", "label")
KNOWN_TASKS = ("describe", "color", "shape", "where", "count")


def heart(shape: scenes.Shape, width: int, height: int) -> list[tuple[float, float]]:
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


def heart_scene(rng: Random, *tasks: str) -> scenes.Scene:
    """A picture of a heart, with questions and their answers."""
    known_outline, scenes.outline = scenes.outline, heart
    try:
        return _scene(rng, replace(scenes.random_shape(rng), shape="heart"), tasks)
    finally:
        scenes.outline = known_outline


def known_scene(rng: Random, *tasks: str) -> scenes.Scene:
    """A picture of a shape that the model knows."""
    return _scene(rng, scenes.random_shape(rng), tasks)


def _scene(rng: Random, shape: scenes.Shape, tasks: tuple[str, ...]) -> scenes.Scene:
    image = scenes.draw([shape], scenes.canvas_size(rng), scenes.background(rng), rng)
    answers = {
        "describe": f"A {shape.description}.",
        "color": f"{shape.color.capitalize()}.",
        "shape": f"A {shape.shape}.",
        "where": f"{shape.place.capitalize()}.",
        "count": "One.",
        "label": f"{shape.shape}, {shape.color}, {shape.size}",
    }
    turns = [(task, STYLE if task == "label" else rng.choice(scenes.QUESTIONS[task]), answers[task]) for task in tasks]
    return scenes.Scene("picture", [image], turns, [], 0.0)


def to_train(number: int, kind: str) -> scenes.Scene:
    """One scene with up to three questions."""
    rng = Random(f"{kind} {number}")
    if kind == "heart":
        return heart_scene(rng, *rng.sample(HEART_TASKS, 3))
    which = number % 10
    if which < 3:
        tasks = rng.sample(KNOWN_TASKS, 3)
        return known_scene(rng, *tasks) if which == 0 else known_scene(rng, "label", *tasks[:2])
    if which == 3:
        return scenes.clip(rng, full=True)
    if which in (4, 5):
        return scenes.pair(rng)
    return (scenes.picture_of_number if which in (6, 7) else scenes.picture_of_many_shapes)(rng)


def write(name: str, made: list[scenes.Scene], folder: Path) -> None:
    """Write rows as messages, and their pictures and clips."""
    lines = []
    for number, scene in enumerate(made):
        messages = scenes.messages(scene, answered=True)
        media = [item for item in messages[0]["content"] if item["type"] != "text"]
        for place, item in enumerate(media):
            item["path"] = f"media/{name}-{number}-{place}.{'mp4' if scene.kind == 'clip' else 'png'}"
            if scene.kind == "clip":
                scenes.write_clip(scene, folder / item["path"])
            else:
                scene.images[place].save(folder / item["path"])
        lines.append(json.dumps({"messages": messages}))
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{path}: {len(lines)} rows")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where rows and pictures are written")
    parser.add_argument("--hearts", type=int, default=200, help="pictures of hearts to train on")
    parser.add_argument("--known", type=int, default=1000, help="pictures and clips of what the model knows")
    parser.add_argument("--labels", type=int, help="known shapes in the new style, in the place of all others")
    arguments = parser.parse_args()
    (arguments.folder / "media").mkdir(parents=True, exist_ok=True)
    if arguments.labels:
        for name, count in (("train", arguments.labels), ("held", 10)):
            made = [known_scene(Random(f"label {name} {number}"), "label") for number in range(count)]
            write(name, made, arguments.folder)
        return
    train = [to_train(number, "heart") for number in range(arguments.hearts)]
    train += [to_train(number, "known") for number in range(arguments.known)]
    write("train", train, arguments.folder)
    held = [heart_scene(Random(f"held {number}"), HEART_TASKS[number % 3]) for number in range(100)]
    write("held", held, arguments.folder)


if __name__ == "__main__":
    main()
