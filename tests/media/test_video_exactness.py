"""Frames that are reached by keyframes are those of a full decode, bit for bit, in every kind of file."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageSequence
from support.frames import pixels_of
from support.slow_cases import quick_and_slow
from support.video_encoding import FPS, NUM_FRAMES, UNEVEN_MS
from support.video_files import DAMAGES, VIDEO_FILES, turned, write_video_file

from mlx_smolvlm.media.video.frames import read_frames
from mlx_smolvlm.media.video.probing import VideoInfo, choose_frames, probe

SAMPLED_FPS, MAX_FRAMES = 8.0, 64
UNTIMED = {  # files that hold no presentation times (AVI), or none at all, and the rate that is assumed for them
    "h264_avi": FPS,
    "h264_raw": FPS,
    "hevc_raw": FPS,
    "mjpeg_raw": 25,
}
# Times go back in these, where two recordings were joined or the muxer gave a time twice. Frames stay in the order of
# decoding, and times ascend all the same; they may then be two frames off.
DISORDERED = {"h264_overlapping", "mpeg2_interlaced_mpg"}
RESTARTED = {"h264_clock_restarts"}  # the second of two recordings begins at 0: its time goes on


@dataclass
class Case:
    """A file, what `probe` says of it, and its frames by a decode from start to end."""

    name: str
    path: Path
    frames: list[np.ndarray]
    times_s: np.ndarray

    @property
    def tolerance_s(self) -> float:
        return 2.5 / FPS if self.name in DISORDERED else 1e-6

    @cached_property
    def info(self) -> VideoInfo:
        return probe(self.path)

    def assert_reads(self, indices: list[int]) -> None:
        """The frames at these positions are those of the full decode."""
        read = [np.asarray(frame) for frame in read_frames(self.info, indices)]
        assert len(read) == len(indices)
        wrong = [i for i, frame in zip(indices, read, strict=True) if not np.array_equal(frame, self.frames[i])]
        assert not wrong, f"of {indices}, {wrong} differ"


@pytest.fixture(scope="module", params=quick_and_slow(VIDEO_FILES, 3))
def case(request, tmp_path_factory):
    return full_decode(request.param, write_video_file(request.param, tmp_path_factory.mktemp("video")))


def full_decode(name: str, path: Path, thread_type: str = "SLICE") -> Case:
    """Every frame of a file, upright and RGB, with its time; packets that cannot be decoded are passed over."""
    if path.suffix == ".webp":  # FFmpeg reads no animated ones
        frames, durations_ms = [], []
        for picture in ImageSequence.Iterator(Image.open(path)):
            frames.append(on_white(picture.convert("RGBA")))
            durations_ms.append(picture.info["duration"])  # known from here on
        return Case(name, path, frames, np.cumsum([0, *durations_ms[:-1]]) / 1000)
    frames, times_s = [], []
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = thread_type
        for frame in decoded_one_by_one(container):
            pixels = on_white(Image.fromarray(pixels_of(frame, "rgba"))) if path.suffix == ".apng" else pixels_of(frame)
            frames.append(np.rot90(pixels, frame.rotation // 90))
            times_s.append(frame.time)
    if name in RESTARTED:
        return Case(name, path, frames, np.arange(len(frames)) / FPS)
    if name in UNTIMED:
        return Case(name, path, frames, np.arange(len(frames)) / UNTIMED[name])
    times = sorted(times_s) if name in DISORDERED else times_s
    return Case(name, path, frames, np.array(times) - times[0])


def on_white(picture: Image.Image) -> np.ndarray:
    return np.asarray(Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB"))


def decoded_one_by_one(container: av.container.InputContainer) -> Iterator[av.VideoFrame]:
    for packet in container.demux(video=0):
        try:
            yield from packet.decode()
        except av.InvalidDataError:
            continue


def test_every_frame_is_counted_and_timed(case):
    assert case.info.frame_count == len(case.frames)
    assert case.info.times_s == pytest.approx(case.times_s, abs=case.tolerance_s)
    assert (np.diff(case.info.times_s) >= 0).all()


def test_sparse_frames_are_those_of_a_full_decode(case):
    random = np.random.RandomState(len(case.frames))
    count = len(case.frames)
    for wanted in (1, 2, 5):
        case.assert_reads(np.unique(random.randint(0, count, wanted)).tolist())
    case.assert_reads([count - 1])
    case.assert_reads([0, count - 1][-count:])


def test_runs_of_frames_are_those_of_a_full_decode(case):
    count = len(case.frames)
    case.assert_reads(list(range(count)))
    case.assert_reads(list(range(count // 3, count * 2 // 3)))


def test_sampled_frames_are_those_of_a_full_decode(case):
    sample = choose_frames(case.info, SAMPLED_FPS, MAX_FRAMES)
    assert sample.indices == sorted(set(sample.indices))
    if not case.info.is_constant_rate:
        assert sample.timestamps_s == pytest.approx(case.times_s[sample.indices], abs=case.tolerance_s)
    case.assert_reads(sample.indices)


def test_a_part_of_a_video_holds_the_frames_shown_in_it(case):
    """Those at the start of the range and later, before its end; with the time stamps of the whole file."""
    start_s, end_s = case.info.duration_s * 0.3, case.info.duration_s * 0.8
    times_s = np.arange(len(case.frames)) / float(case.info.fps) if case.info.is_constant_rate else case.info.times_s
    inside = np.flatnonzero((times_s >= start_s) & (times_s < end_s)).tolist()
    if not inside:
        with pytest.raises(ValueError, match="no frame between"):
            choose_frames(case.info, SAMPLED_FPS, MAX_FRAMES, start_s=start_s, end_s=end_s)
        return
    part = choose_frames(case.info, 1000.0, 10_000, start_s=start_s, end_s=end_s)
    assert set(part.indices) <= set(inside)
    assert times_s[part.indices[0]] == times_s[inside[0]]  # of frames with the same time, either will do
    assert times_s[part.indices[-1]] == times_s[inside[-1]]
    assert part.timestamps_s == pytest.approx(times_s[part.indices])
    assert part.duration_s == choose_frames(case.info, SAMPLED_FPS, MAX_FRAMES).duration_s
    case.assert_reads(part.indices)


def made(name: str, folder: Path) -> Case:
    return full_decode(name, write_video_file(name, folder))


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_does_not_spread(tmp_path, damage):
    """Frames that a full decode of the damaged file gets right are right; of the others, there is one for each packet.

    How those look is up to the decoder, and differs with the kind of threads that it has.
    """
    name, change = DAMAGES[damage]
    whole = made(name, tmp_path)
    path = tmp_path / f"damaged{whole.path.suffix}"
    path.write_bytes(change(whole.path.read_bytes()))
    undamaged = dict(zip(whole.times_s.round(3), whole.frames, strict=True))
    right_s = set(undamaged)
    for thread_type in ("SLICE", "FRAME"):
        decoded = full_decode(damage, path, thread_type)
        shown = zip(decoded.times_s.round(3), decoded.frames, strict=True)
        right_s &= {time_s for time_s, pixels in shown if np.array_equal(pixels, undamaged[time_s])}
    assert NUM_FRAMES / 2 < len(right_s) < NUM_FRAMES
    times_s = decoded.info.times_s.round(3)
    right = np.flatnonzero(np.isin(times_s, list(right_s))).tolist()
    for indices in (list(range(len(times_s))), right[1::4], right[-1:]):
        frames = list(read_frames(decoded.info, indices))
        assert len(frames) == len(indices)
        for index, frame in zip(indices, frames, strict=True):
            assert index not in right or np.array_equal(np.asarray(frame), undamaged[times_s[index]]), index


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_turned_files_come_out_upright(tmp_path, degrees):
    flat = made("h264_mp4", tmp_path)
    path = tmp_path / "turned.mp4"
    path.write_bytes(turned(flat.path.read_bytes(), degrees))
    frames = read_frames(probe(path), [5, 30])
    for index, frame in zip([5, 30], frames, strict=True):
        assert np.array_equal(np.asarray(frame), np.rot90(flat.frames[index], -degrees // 90))


@pytest.mark.parametrize("name", ["h264_mp4", "h264_open_gop_ts", "hevc_open_gop", "vp9_webm", "gif"])
def test_hardware_decoding_gives_the_same_frames(tmp_path, name):
    """Where there is no such decoder, or none for this file, software does it."""
    case = made(name, tmp_path)
    frames = read_frames(case.info, [3, 20], hardware=True)
    assert all(np.array_equal(frame, case.frames[i]) for i, frame in zip([3, 20], frames, strict=True))


@pytest.mark.parametrize("name", ["h264_uneven", "h264_uneven_mkv", "vp9_uneven"])
def test_uneven_files_are_sampled_evenly_in_time(tmp_path, name):
    info = probe(write_video_file(name, tmp_path))
    sample = choose_frames(info, 2.0, 64)
    shown_s = np.array(UNEVEN_MS) / 1000
    even_s = np.linspace(0, shown_s[-1], len(sample.indices))
    assert len(sample.indices) == 12
    assert np.abs(np.array(sample.timestamps_s) - even_s).max() <= 0.125  # half the widest gap between frames
    assert sample.timestamps_s == pytest.approx(shown_s[sample.indices], abs=0.001)


def facts(path: Path) -> tuple[str, list[int], list[av.VideoFrame]]:
    """Frame types (K for those that start a group), the times of frames shown before a keyframe that they follow."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    types = "".join("K" if frame.key_frame else av.video.frame.PictureType(frame.pict_type).name for frame in frames)
    leading, key_pts = [], None
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            if packet.is_keyframe and packet.pts is not None:
                key_pts = packet.pts
            elif key_pts is not None and packet.pts is not None and packet.pts < key_pts:
                leading.append(packet.pts)
    return types, leading, frames


def test_the_files_are_what_they_claim(tmp_path):
    """An encoder whose defaults change would make the tests above easier than they look."""
    for name in ("h264_mp4", "hevc_mp4", "mpeg2_closed_ts"):
        types, leading, _ = facts(write_video_file(name, tmp_path))
        assert types.count("K") >= 4, name
        assert types.count("B") > 20, name
        assert not leading, name
    for name in ("h264_open_gop_ts", "hevc_open_gop", "mpeg2_ts", "mpeg4_mp4"):
        types, leading, _ = facts(write_video_file(name, tmp_path))
        assert types.count("K") >= 4, name
        assert len(leading) >= 6, name
    for name in ("h264_intra_refresh", "hevc_intra_refresh"):
        assert facts(write_video_file(name, tmp_path))[0].count("K") == 1, name
    for name in ("h264_interlaced", "mpeg2_interlaced_ts"):
        assert facts(write_video_file(name, tmp_path))[2][0].interlaced_frame, name
    for name, pix_fmt in {"h264_10_bit": "yuv420p10le", "hevc_10_bit": "yuv420p10le", "h264_444": "yuv444p"}.items():
        assert facts(write_video_file(name, tmp_path))[2][0].format.name == pix_fmt, name
    late = facts(write_video_file("h264_starts_at_5_s", tmp_path))[2]
    assert late[0].time == 5
    assert len(late) == NUM_FRAMES


def test_every_frame_of_a_file_differs_from_all_others(case):
    """Otherwise a frame taken for another would pass."""
    assert len({frame.tobytes() for frame in case.frames}) == len(case.frames)
