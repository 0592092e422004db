"""What the highlights example cuts out is whole, in sync and as it was."""

import sys
from fractions import Fraction
from pathlib import Path
from random import Random

import av
import numpy as np
import pytest
from support.films import blinking, changes, heard, is_on, seen, turned_by_90, write_film
from support.slow_cases import quick_and_slow

from mlx_smolvlm.media.video.frames import read_frames
from mlx_smolvlm.media.video.probing import probe

ROOT = Path(__file__).parent.parent
sys.path += [str(ROOT / "examples"), str(ROOT / "examples" / "demo_model")]

from highlights.cut import cut, cut_points, decode_times  # noqa: E402
from highlights.segments import Segment, laid_end_to_end, split  # noqa: E402

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


@pytest.mark.parametrize("case", quick_and_slow(CUTS, ["h264 in Matroska, opus", "no clean keyframes", "no sound"]))
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


def test_joined_recordings_are_cut_where_they_are_shown(tmp_path):
    """The second one's clock begins anew, its sound's too."""
    path = tmp_path / "film.ts"
    first = write_film(tmp_path / "a.ts", blinking(np.arange(60) / 10)).read_bytes()
    loudness = lambda time_s: np.where(time_s < 3, 0.3, 0.0)  # noqa: E731
    write_film(path, [255 - pixels for pixels in blinking(np.arange(60) / 10)], loudness=loudness)
    path.write_bytes(first + path.read_bytes())
    info = probe(path)
    assert (info.frame_count, info.duration_s) == (120, 12.0)
    expected = [np.asarray(frame).mean() for frame in read_frames(info, list(range(80, 100)))]
    cut_out(path, tmp_path / "out.mp4", (8.0, 10.0))
    times_s, brightness = seen(tmp_path / "out.mp4")
    assert times_s == pytest.approx(np.arange(20) / 10)
    assert brightness == pytest.approx(expected, abs=1)
    assert changes(*heard(tmp_path / "out.mp4"), 0.1)[-1] == pytest.approx(1.0, abs=0.06)


def test_pixels_that_are_not_square_keep_their_shape(tmp_path):
    path, output = tmp_path / "film.mp4", tmp_path / "out.mp4"
    options = {"g": "1000", "sc_threshold": "0", "aspect": "16:9"}
    write_film(path, blinking(np.arange(30) / 10), options=options, audio=None)
    cut_out(path, output, (1.0, 2.0))
    with av.open(str(path)) as before, av.open(str(output)) as after:
        streams = [container.streams.video[0] for container in (before, after)]
        shapes = [(stream.width, stream.height, stream.sample_aspect_ratio) for stream in streams]
    assert shapes == [(64, 48, Fraction(16, 9)), (114, 48, 1)]


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
