"""The highlights example: the planted scene is found, and what is cut out is whole, in sync and as it was.

One file: the tests share the films and the checks of what was cut.
"""

import json
import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from random import Random

import av
import numpy as np
import pytest
from support.films import blinking, changes, heard, is_on, seen, turned_by_90, write_film

from mlx_smolvlm import DEMO_MODEL, generate_text, load
from mlx_smolvlm.media.video.frames import read_frames
from mlx_smolvlm.media.video.probing import probe

ROOT = Path(__file__).parent.parent
sys.path += [str(ROOT / "examples"), str(ROOT / "examples" / "demo_model")]

import scenes  # noqa: E402
import video_highlights  # noqa: E402
from highlights.cut import cut, cut_points, decode_times  # noqa: E402
from highlights.describe import most_distinct, verdict  # noqa: E402
from highlights.segments import Segment, laid_end_to_end, split  # noqa: E402

SEGMENT_S, SEGMENTS, PLANTED, RATE = 10, 6, 3, 5


def run(folder: Path, *arguments) -> subprocess.CompletedProcess:
    """The example as a command, in a folder."""
    command = [sys.executable, str(ROOT / "examples" / "video_highlights.py"), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def planted_pictures():
    """A blue circle that crosses to the right, again and again; in one segment a red one that rises."""
    rng = Random(0)
    for number in range(SEGMENTS):
        for index in range(SEGMENT_S * RATE):
            way = 0.6 * (index / (SEGMENT_S * RATE - 1) - 0.5)
            x, y, color = (0.5, 0.5 - way, "red") if number == PLANTED else (0.5 + way, 0.5, "blue")
            shape = scenes.Shape("large", color, "circle", "", x, y, 0.235, 0.0)
            yield np.asarray(scenes.draw([shape], (96, 96), (236, 234, 228), rng))


def is_planted(time_s):
    return (np.asarray(time_s) // SEGMENT_S).astype(int) == PLANTED


@pytest.fixture(scope="module", params=["keyframes at the segments", "no keyframes there"])
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
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
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


GOPS = {"g": "10", "sc_threshold": "0", "bf": "2"}
ONE_GOP = {**GOPS, "g": "1000"}
HEVC = {"x265-params": "keyint=10:scenecut=0:open-gop=0:log-level=none"}
# name of the file, video codec, its options, audio codec, whether the pictures are copied
CUTS = {
    "h264 with B-frames, aac": ("film.mp4", "libx264", GOPS, "aac", True),
    "h264 in Matroska, opus": ("film.mkv", "libx264", GOPS, "libopus", True),
    "h264 in a transport stream, mp3": ("film.ts", "libx264", GOPS, "libmp3lame", True),
    "hevc, flac": ("film.mkv", "libx265", HEVC, "flac", True),
    "no clean keyframes": ("film.mp4", "libx264", {**GOPS, "x264-params": "open-gop=1"}, "aac", False),
    "no keyframes, pcm": ("film.mov", "libx264", ONE_GOP, "pcm_s16le", False),
    "mpeg4 in AVI, pcm": ("film.avi", "mpeg4", {"g": "10", "sc_threshold": "1000000000"}, "pcm_s16le", False),
    "vp9, mp2": ("film.mkv", "libvpx-vp9", {"g": "300", "deadline": "realtime", "cpu-used": "8"}, "mp2", False),
    "no sound": ("film.mp4", "libx264", GOPS, None, True),
}


def cut_out(path: Path, output: Path, *ranges_s: tuple[float, float]):
    """Cut ranges of seconds out; returns the spans and whether they were copied."""
    info = probe(path)
    positions = np.searchsorted(info.times_s, np.array(ranges_s) - 1e-3).tolist()
    segments = [Segment(*pair, *seconds, is_highlight=True) for pair, seconds in zip(positions, ranges_s, strict=True)]
    spans = laid_end_to_end(segments)
    return spans, cut(info, spans, output, lambda second: None)


@pytest.mark.parametrize("case", CUTS)
def test_what_is_cut_out_is_whole_and_in_sync(tmp_path, case):
    name, video, options, audio, is_copied = CUTS[case]
    times_s = np.arange(300) / 10
    loudness = lambda time_s: np.where(is_on(time_s), 0.5, 0.0)  # noqa: E731
    path = write_film(tmp_path / name, blinking(times_s), video=video, options=options, audio=audio, loudness=loudness)
    output = tmp_path / "out.mp4"
    ranges_s = [(4.0, 9.0), (12.0, 14.0), (21.0, 30.0)]
    spans, copied = cut_out(path, output, *ranges_s)
    assert copied == is_copied
    assert [span.offset_s for span in spans] == [0, 5, 7]

    shown_s, brightness = seen(output)
    source_s = np.concatenate([times_s[round(a * 10) : round(b * 10)] for a, b in ranges_s])
    assert np.allclose(shown_s, np.arange(160) / 10, atol=2e-3)  # Matroska's times are milliseconds
    assert ((brightness > 130) == is_on(source_s)).all()
    with av.open(str(output)) as container:
        assert container.duration / 1e6 == pytest.approx(16, abs=0.06)
        assert container.streams.video[0].codec_tag == ("hvc1" if video == "libx265" else "avc1")
        decoding = [packet.dts for packet in container.demux(video=0) if packet.dts is not None]
        assert decoding == sorted(set(decoding))
    if audio:
        with av.open(str(output)) as container:
            starts_s = [float(packet.pts * packet.time_base) for packet in container.demux(audio=0) if packet.size]
        lengths_s = np.diff(starts_s)
        assert np.abs(lengths_s - np.median(lengths_s)).max() < 1.5e-3  # no gap and no overlap where parts join
        sight, sound = changes(shown_s, brightness, 130), changes(*heard(output), 0.15)
        inner = [second for second in sight if min(abs(second - join) for join in (5, 7)) > 0.1]
        assert all(min(abs(second - other) for other in sound) < 0.035 for second in inner), (sight, sound)
        assert all(min(abs(second - other) for other in [*sight, 5, 7, 0, 16]) < 0.035 for second in sound)


def test_times_of_variable_rate_are_kept(tmp_path):
    rng = Random(1)
    times_s = np.cumsum([0] + [rng.choice((0.04, 0.08, 0.2)) for _ in range(249)]).round(3)
    for options in ({"g": "5", "bf": "2"}, {"g": "1000", "sc_threshold": "0"}):
        path = tmp_path / "film.mkv"
        write_film(path, blinking(times_s), times_s=times_s.tolist(), options=options, audio=None)
        points = cut_points(probe(path)).tolist()
        first, end = (points[3], points[8]) if len(points) > 8 else (20, 90)
        _, copied = cut_out(path, tmp_path / "out.mp4", (times_s[first], times_s[end]))
        assert copied == (len(points) > 8)
        shown_s, _ = seen(tmp_path / "out.mp4")
        assert np.allclose(shown_s, times_s[first:end] - times_s[first], atol=1e-3)


@pytest.mark.parametrize("keyframes", ["10", "1000"])
def test_what_starts_late_stays_in_sync(tmp_path, keyframes):
    times_s = np.arange(100) / 10
    path = write_film(
        tmp_path / "late.mkv",
        blinking(times_s),
        options={"g": keyframes, "sc_threshold": "0"},
        loudness=lambda time_s: np.where(is_on(time_s), 0.5, 0.0),
        start_s=7.3,
    )
    cut_out(path, tmp_path / "out.mp4", (2.0, 8.0))
    shown_s, brightness = seen(tmp_path / "out.mp4")
    assert shown_s[0] == 0
    sight, sound = changes(shown_s, brightness, 130), changes(*heard(tmp_path / "out.mp4"), 0.15)
    assert sight
    assert all(min(abs(second - other) for other in sound) < 0.035 for second in sight), (sight, sound)


@pytest.mark.parametrize("keyframes", ["10", "1000"])
def test_rotated_files_stay_upright(tmp_path, keyframes):
    """Copied, the note to turn them is kept; re-encoded, the frames are turned."""
    path = tmp_path / "film.mp4"
    write_film(path, blinking(np.zeros(40), (64, 32)), options={"g": keyframes, "sc_threshold": "0"}, audio=None)
    path.write_bytes(turned_by_90(path.read_bytes()))
    _, copied = cut_out(path, tmp_path / "out.mp4", (1.0, 3.0))
    assert copied == (keyframes == "10")
    before, after = (np.asarray(next(read_frames(probe(file), [0]))) for file in (path, tmp_path / "out.mp4"))
    assert before.shape == after.shape == (64, 32, 3)
    assert np.abs(before.astype(int) - after).max() <= 6


def test_odd_sizes_and_ten_bits_become_playable(tmp_path):
    path = tmp_path / "film.mkv"
    write_film(path, blinking(np.arange(30) / 10, (63, 47)), pix_fmt="yuv444p10le", options=ONE_GOP, audio=None)
    cut_out(path, tmp_path / "out.mp4", (1.0, 2.0))
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.pix_fmt) == (64, 48, "yuv420p")


def test_pixels_that_are_not_square_keep_their_shape(tmp_path):
    path, output = tmp_path / "film.mp4", tmp_path / "out.mp4"
    options = {"g": "1000", "sc_threshold": "0", "aspect": "16:9"}
    write_film(path, blinking(np.arange(30) / 10), options=options, audio=None)
    cut_out(path, output, (1.0, 2.0))
    with av.open(str(path)) as before, av.open(str(output)) as after:
        aspects = [container.streams.video[0].sample_aspect_ratio for container in (before, after)]
    assert aspects == [Fraction(16, 9)] * 2


def test_decode_times_ascend_and_wait_for_no_frame():
    """I0 P3 B1 B2, twice: one frame ahead of its turn, so everything is decoded one frame early."""
    pts = [0, 30, 10, 20, 40, 70, 50, 60]
    assert decode_times(pts) == [-10, 0, 10, 20, 30, 40, 50, 60]
    assert decode_times([5]) == [5]


def test_boundaries_lie_on_keyframes_that_are_near(tmp_path):
    pictures = blinking(np.arange(330) / 10)
    path = write_film(tmp_path / "film.mp4", pictures, options={**GOPS, "g": "12"}, audio=None)
    starts_s = [segment.start_s for segment in split(probe(path), 10)]
    assert starts_s == pytest.approx([0, 9.6, 20.4])  # and the last 3 s belong to the third
    assert split(probe(path), 10)[-1].end_s == pytest.approx(33)
    assert [segment.end for segment in split(probe(path), 1000)] == [330]


def test_open_groups_of_pictures_are_not_cut(tmp_path):
    """Frames that are shown before a keyframe but follow it in the file need what is on both sides of it."""
    for is_open, expected in enumerate(([0, 12, 24, 36, 48], [0])):
        options = {**GOPS, "g": "12", "x264-params": f"b-adapt=0:open-gop={is_open}"}
        path = write_film(tmp_path / "film.mp4", blinking(np.arange(50) / 10), options=options, audio=None)
        assert cut_points(probe(path)).tolist() == expected


def test_touching_highlights_become_one():
    flags = [True, False, True, True]
    segments = [Segment(10 * i, 10 * i + 10, i, i + 1, "", flag) for i, flag in enumerate(flags)]
    spans = laid_end_to_end(segments)
    assert [(span.first, span.end, span.offset_s) for span in spans] == [(0, 10, 0), (20, 40, 1)]


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
