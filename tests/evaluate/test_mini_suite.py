"""The mini suite: the same rows and pixels from the same seed, true answers, graded difficulty."""

import json
from hashlib import sha256
from random import Random

import av
import numpy as np
import pytest
from PIL import Image

from mlx_smolvlm.evaluate.mini import mini_shapes
from mlx_smolvlm.evaluate.mini.mini_selection import BASIC_CATEGORIES, CATEGORIES, MiniSuite, read_categories
from mlx_smolvlm.evaluate.mini.mini_suite import mini_questions, mini_suite_at, write_clip, write_mini_suite
from mlx_smolvlm.evaluate.scoring.mini_choice import named_choice

LAP = 3 * len(CATEGORIES)  # every category at every difficulty


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mini") / "suite"
    path = write_mini_suite(MiniSuite(LAP), folder)
    return folder, [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_rows_have_what_evaluation_reads(made):
    folder, rows = made
    assert len({row["index"] for row in rows}) == len(rows) == LAP
    assert [(row["category"], row["difficulty"]) for row in rows] == [(c, d) for d in (1, 2, 3) for c in CATEGORIES]
    for row in rows:
        assert row["dataset"] == "mini" and row["question"] and row["answer"]
        assert ("video" in row) != ("images" in row)
        assert all((folder / name).is_file() for name in row.get("images", [row.get("video")]))
        if row["scorer"] == "letter":
            assert row["answer"] in row and len({row[letter] for letter in "ABCD"}) == 4
        if row["scorer"] == "choice":
            answers = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
            said = " ".join(names[answer][0] for names, answer in zip(row["choices"], answers, strict=True))
            assert [named_choice(said, names) for names in row["choices"]] == answers
        if row["scorer"] == "yes_no":
            assert row["answer"] in ("Yes", "No")


def test_the_same_seed_makes_the_same_files(made, tmp_path):
    folder, rows = made
    path = mini_suite_at(MiniSuite(15), tmp_path)
    again = path.parent
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == rows[:15]
    names = [file.relative_to(again) for file in (again / "media").iterdir()]
    assert len(names) > 15
    assert [name for name in names if (folder / name).read_bytes() != (again / name).read_bytes()] == []
    assert mini_suite_at(MiniSuite(15), tmp_path) == path  # which is kept


def test_a_shorter_suite_is_the_beginning_of_a_longer_one_and_another_seed_another_suite():
    stills = ("color", "chart")
    suites = [
        [question for _, _, question in mini_questions(suite)]
        for suite in (MiniSuite(4, 0, stills), MiniSuite(7, 0, stills), MiniSuite(4, 1, stills))
    ]
    assert suites[1][:4] == suites[0] != suites[2]


def test_pixels_of_shapes_are_those_of_every_machine():
    """No font and no file: integers and Python's generator alone."""
    image = mini_shapes.one_shape(Random("fixed"), 2, "color").images[0]
    assert sha256(image.tobytes()).hexdigest()[:16] == "c51ee4901fecdca7"


def test_clips_are_read_back_as_they_were_drawn(tmp_path):
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, 256, (48, 64), dtype=np.uint8) for _ in range(5)]
    write_clip([Image.fromarray(grey).convert("RGB") for grey in drawn], 10, tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "clip.mp4")) as container:
        read = [frame.to_ndarray(format="yuv420p")[:48] for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 10
    scaled = [16 + grey * (219 / 255) for grey in drawn]  # limited range, as videos have it
    assert all(np.abs(a - b).max() <= 1 for a, b in zip(read, scaled, strict=True))


def test_shapes_move_as_the_answer_says():
    """The centre of what is not paper, in the first and the last frame."""
    for number in range(8):
        question = mini_shapes.moving_shape(Random(number), 1)
        first, last = (np.asarray(question.frames[place].convert("L"), float) for place in (0, -1))
        centres = [np.argwhere(np.abs(grey - np.median(grey)) > 15).mean(axis=0) for grey in (first, last)]  # (y, x)
        y, x = centres[1] - centres[0]
        moved = ("right" if x > 0 else "left") if abs(x) > abs(y) else ("down" if y > 0 else "up")
        assert moved == question.answer


@pytest.mark.parametrize(
    ("answer", "choice"),
    [
        ("At the top left.", "top left"),
        ("From left to right.", "right"),
        ("LEFT", "left"),
        ("It is leftover.", None),
        ("", None),
        ("First the top left, in the end the left", "left"),
    ],
)
def test_the_choice_that_an_answer_names_last_counts(answer, choice):
    names = {"left": ["left"], "right": ["right"], "top left": ["top left", "upper left"]}
    assert named_choice(answer, names) == choice


def test_categories_by_name():
    assert read_categories(None) == CATEGORIES
    assert read_categories("basic, chart") == (*BASIC_CATEGORIES, "chart")
    assert MiniSuite(4, categories=("sign",)).name != MiniSuite(4).name
    for wrong in ("colour", "color,color", ""):
        with pytest.raises(ValueError, match="--mini-categories"):
            MiniSuite(4, categories=read_categories(wrong))
    for rows in (0, -1, 10**6):
        with pytest.raises(ValueError, match="--mini-rows"):
            MiniSuite(rows)
