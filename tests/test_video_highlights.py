"""The highlights example: the planted scene is found, the model judges, and what goes wrong is one line."""

import json
import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from random import Random

import av
import numpy as np
import pytest
from support.films import heard, seen, write_film
from support.frames import pixels_of
from support.slow_cases import slow

from mlx_smolvlm import DEMO_MODEL, generate_text, load

ROOT = Path(__file__).parent.parent
sys.path += [str(ROOT / "examples"), str(ROOT / "examples" / "demo_model")]

import scenes  # noqa: E402
import video_highlights  # noqa: E402
from highlights.describe import most_distinct, verdict  # noqa: E402
from highlights.segments import Segment  # noqa: E402

SEGMENT_S, SEGMENTS, PLANTED, RATE = 10, 6, 3, 5


def run(folder: Path, *arguments) -> subprocess.CompletedProcess:
    """The example as a command, in a folder."""
    command = [sys.executable, str(ROOT / "examples" / "video_highlights.py"), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@cache
def planted_pictures():
    """A blue circle that crosses to the right, again and again; in one segment a red one that rises."""
    rng, pictures = Random(0), []
    for number in range(SEGMENTS):
        for index in range(SEGMENT_S * RATE):
            way = 0.6 * (index / (SEGMENT_S * RATE - 1) - 0.5)
            x, y, color = (0.5, 0.5 - way, "red") if number == PLANTED else (0.5 + way, 0.5, "blue")
            shape = scenes.Shape("large", color, "circle", "", x, y, 0.235, 0.0)
            pictures.append(np.asarray(scenes.draw([shape], (96, 96), (236, 234, 228), rng)))
    return pictures


def is_planted(time_s):
    return (np.asarray(time_s) // SEGMENT_S).astype(int) == PLANTED


@pytest.fixture(scope="module", params=["keyframes at the segments", slow("no keyframes there")])
def planted(request, tmp_path_factory):
    """(path, whether it can be copied): the sound is loud in the planted segment alone."""
    can_copy = request.param == "keyframes at the segments"
    options = {"g": "25" if can_copy else "600", "sc_threshold": "0", "crf": "23"}
    path = tmp_path_factory.mktemp("planted") / "film.mp4"
    loudness = lambda time_s: np.where(is_planted(time_s), 0.5, 0.02)  # noqa: E731
    return write_film(path, planted_pictures(), rate=RATE, options=options, loudness=loudness), can_copy


def test_it_finds_the_planted_scene(planted, tmp_path):
    path, can_copy = planted
    done = run(tmp_path, path, "--find", "up")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert ("copied" in done.stdout) == can_copy

    line = json.loads((tmp_path / "highlights.json").read_text())
    assert line["source"] == str(path)
    assert line["output"] == "highlights.mp4"
    assert [(part["start_s"], part["end_s"]) for part in line["segments"]] == [
        (start, start + 10) for start in range(0, 60, 10)
    ]
    assert [part["is_highlight"] for part in line["segments"]] == [number == PLANTED for number in range(SEGMENTS)]
    assert line["segments"][PLANTED]["description"] == "The red shape moves up."
    assert {part["description"] for part in line["segments"]} == {
        "The blue shape moves to the right.",
        "The red shape moves up.",
    }
    assert "| **0:00:30** | **0:00:40** | **The red shape moves up.** |" in (tmp_path / "highlights.md").read_text()
    assert sorted(os.listdir(tmp_path)) == ["highlights.json", "highlights.md", "highlights.mp4"]

    output = tmp_path / "highlights.mp4"
    with av.open(str(output)) as container:
        assert container.duration / 1e6 == pytest.approx(SEGMENT_S, abs=0.05)
        frames = [pixels_of(frame).astype(int) for frame in container.decode(video=0)]
    assert len(frames) == SEGMENT_S * RATE
    heights = [np.argwhere(frame[..., 0] - frame[..., 2] > 80)[:, 0].mean() for frame in frames]  # of what is red
    assert heights[0] > 70
    assert heights[-1] < 30
    assert (np.diff(heights) < 0.5).all()
    times_s, _ = seen(output)
    assert np.allclose(times_s, np.arange(SEGMENT_S * RATE) / RATE, atol=1e-4)
    _, loudness = heard(output)
    assert len(loudness) * 0.005 == pytest.approx(SEGMENT_S, abs=0.05)
    assert (loudness[5:-10] > 0.2).all()  # at the joins, up to half a packet may be the neighbours'
    assert generate_text(*load(DEMO_MODEL), "Which way does the shape move?", videos=[str(output)]) == (
        "The red shape moves up."
    )


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("Yes.", True), ("no", False), ("Answer: NO, yes would be wrong", False), ("Perhaps", None), ("Nothing", None)],
)
def test_verdicts_are_read_by_whole_words(answer, expected):
    assert verdict(answer) is expected


def test_of_too_many_highlights_the_least_alike_are_kept():
    texts = ["a man runs", "a man runs", "a dog jumps", "a man runs", "a man jumps"]
    segments = [Segment(i, i + 1, i, i + 1, text, True) for i, text in enumerate(texts)]
    assert most_distinct(segments, [0, 1, 2, 3, 4], 2) == [2, 4]
    assert most_distinct(segments, [0, 1, 3], 2) == [0, 1]  # equal: the earlier


@pytest.fixture
def clip():
    return ROOT / "mlx_smolvlm" / "demo" / "clip.mp4"


def test_nothing_found_is_said_and_leaves_no_video(clip, tmp_path):
    (tmp_path / "highlights.mp4").write_text("of an earlier run")
    done = run(tmp_path, clip, "--find", "elephant", "--force")
    assert done.returncode == 0
    assert "no highlights" in done.stdout
    assert sorted(os.listdir(tmp_path)) == ["highlights.json", "highlights.md"]
    assert json.loads((tmp_path / "highlights.json").read_text())["output"] is None


def test_files_that_are_there_are_kept(clip, tmp_path):
    (tmp_path / "highlights.md").write_text("mine")
    done = run(tmp_path, clip, "--find", "right")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--force" in done.stderr
    assert os.listdir(tmp_path) == ["highlights.md"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.mp4", "--find", "x"], "no video file missing.mp4"),
        (["CLIP"], "demo model cannot tell"),
        (["CLIP", "--find", "("], "not a regular expression"),
        (["CLIP", "--find", "x", "--segment", "0"], "at least 1 second"),
        (["CLIP", "--find", "x", "--segment", "nan"], "at least 1 second"),
        (["CLIP", "--find", "x", "--out", "film.avi"], "ends in .mp4"),
        (["CLIP", "--find", "x", "--out", "nowhere/film.mp4"], "no folder nowhere"),
        (["CLIP", "--find", "x", "--max-highlights", "0"], "at least 1"),
        (["CLIP", "--find", "x", "--fps", "-1"], "fps is -1"),
        (["text.mp4", "--find", "x"], "not a video file"),
        (["text.mp4", "--find", "x", "--out", "./text.mp4", "--force"], "is the video itself"),
    ],
)
def test_bad_input_ends_with_one_line(clip, tmp_path, monkeypatch, capsys, arguments, message):
    (tmp_path / "text.mp4").write_text("not a video" * 100)
    words = [str(clip) if word == "CLIP" else word for word in arguments]
    status, out, err = run_here(monkeypatch, capsys, tmp_path, *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert os.listdir(tmp_path) == ["text.mp4"]


def run_here(monkeypatch, capsys, folder: Path, *arguments) -> tuple[int, str, str]:
    """The example in this process: exit status and what was printed."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["video_highlights.py", *map(str, arguments)])
    status = 0
    try:
        video_highlights.main()
    except SystemExit as exit_:
        status = exit_.code
    return status, *capsys.readouterr()


def test_an_interrupt_leaves_nothing(clip, tmp_path, monkeypatch, capsys):
    """Ctrl-C while the video is being written, and an earlier one is to be replaced."""
    (tmp_path / "highlights.mp4").write_text("of an earlier run")

    def interrupted(*_):
        assert len(os.listdir(tmp_path)) == 2  # that one, and the folder in which the new one grows
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("highlights.cut._can_copy", lambda *_: False)
    monkeypatch.setattr("highlights.cut.sound_packets", lambda *_: (interrupted() for _ in range(1)))
    status, _, err = run_here(monkeypatch, capsys, tmp_path, clip, "--find", ".", "--force")
    assert status == 130
    assert err == ""
    assert [path.read_text() for path in tmp_path.iterdir()] == ["of an earlier run"]


def test_without_a_text_to_find_the_model_judges(clip, tmp_path, monkeypatch, capsys):
    """Asked about the whole video first, then twice about each segment; the second time it is told what it said."""
    asked = []

    def answer(model, processor, chat, *, max_tokens, prompt_cache):
        question = chat[-1]["content"][-1]["text"]
        asked.append((question, chat[0]["content"][0]["video"].duration_s, prompt_cache))
        if "highlight" not in question:
            return "A dull film." if len(asked) == 1 else f" Part {len(asked)}.\n"
        assert chat[1]["content"] == f"Part {len(asked) - 1}."
        return {3: "No.", 5: " Yes, it does."}.get(len(asked), "I cannot say.")

    monkeypatch.setattr("highlights.describe.generate_text", answer)
    arguments = (clip, "--model", DEMO_MODEL, "--segment", "2.5", "--out", "best.mp4")
    status, out, err = run_here(monkeypatch, capsys, tmp_path, *arguments)
    assert status == 0
    assert [duration_s for _, duration_s, _ in asked] == pytest.approx([7.7, 2.5, 2.5, 2.5, 2.5, 2.7, 2.7])
    assert all("A dull film." in question for question, _, _ in asked[2::2])
    assert [asked[i][2] is asked[i + 1][2] for i in range(1, 6)] == [True, False, True, False, True]
    assert err == "note: segments that got neither yes nor no, and are no highlights: 1\n"
    assert "Part 4." in out
    parts = json.loads((tmp_path / "best.json").read_text())["segments"]
    assert [part["is_highlight"] for part in parts] == [False, True, False]
    assert sorted(os.listdir(tmp_path)) == ["best.json", "best.md", "best.mp4"]
