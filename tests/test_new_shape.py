"""The example that teaches the demo model a new shape: its rows are true."""

import json
import sys
from pathlib import Path
from random import Random

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path += [str(ROOT / "examples" / "new_shape"), str(ROOT / "examples" / "demo_model")]

import make_rows  # noqa: E402
import scenes  # noqa: E402


def seen_place(image):
    """The place whose center is nearest to the middle of what is drawn."""
    pixels = np.asarray(image, np.float32)
    ink = np.abs(pixels - np.median(pixels, axis=(0, 1))).max(-1) > 50
    y, x = (axis.mean() / size for axis, size in zip(np.nonzero(ink), ink.shape, strict=True))
    return min(scenes.PLACES, key=lambda place: np.hypot(*(np.array(scenes.PLACES[place]) - (x, y))))


def test_variants_of_a_heart_are_where_their_answers_say(monkeypatch):
    monkeypatch.setattr(make_rows, "HEARTS", 12)
    made = make_rows.hearts_to_train("test")
    assert 12 * make_rows.VARIANTS["large"] < len(made) < 12 * make_rows.VARIANTS["small"]
    described = [scene for scene in made if scene.turns[0][0] == "describe"]
    assert len({scene.turns[0][2] for scene in described}) > 12  # mirrored ones are elsewhere
    for scene in described:
        assert scene.turns[0][2].endswith(f" heart {seen_place(scene.images[0])}.")


def test_rows_in_the_new_style_name_what_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["make_rows.py", str(tmp_path), "--labels", "3"])
    make_rows.main()
    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    assert len(lines) == 3
    for line in lines:
        asked, answered = json.loads(line)["messages"]
        assert asked["content"][1]["text"] == make_rows.STYLE
        shape, color, size = answered["content"][0]["text"].split(", ")
        assert (shape in scenes.SHAPES, color in scenes.COLORS, size in scenes.SIZES) == (True, True, True)
        assert (tmp_path / asked["content"][0]["path"]).exists()


def test_known_scenes_do_not_become_hearts():
    outline = scenes.outline
    make_rows.heart_scene(Random(0), "shape")
    assert scenes.outline is outline
