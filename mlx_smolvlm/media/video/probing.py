"""Video file -> which of its frames the model sees, and their times. PyAV only, no MLX.

Sampling is that of transformers, `models/smolvlm/video_processing_smolvlm.py`, on the frame count and the
average rate that `video_utils.read_video_pyav` takes from the container. Where that would be wrong for users
it is done better: frame counts are those of the packets, and files of variable frame rate are sampled evenly
in time, with each frame's true time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from .animated_webp import is_animated_webp, webp_times
from .container import open_video, packets, video_path
from .packet_table import PacketTable, packet_table

ASSUMED_FPS = 25  # of a stream that states none, as FFmpeg assumes
SKIPPED_S = 1  # left out at both ends of a long video, where titles and credits are


@dataclass(frozen=True)
class VideoInfo:
    """Facts about the first video stream of a file.

    `times_s` holds each frame's presentation time from the first frame on, in order; `fps` is the average rate;
    `duration_s` is frame count / fps; `packets` says how to reach a frame, None for animated WebP.
    """

    path: Path
    fps: Fraction
    times_s: np.ndarray  # (frame_count,) float64
    packets: PacketTable | None

    @property
    def digest(self) -> bytes:
        """Equal for equal streams, wherever they lie."""
        return blake2b(self.path.read_bytes(), digest_size=16).digest() if self.packets is None else self.packets.digest

    @property
    def frame_count(self) -> int:
        """Frames in the file, by its packets."""
        return len(self.times_s)

    @property
    def duration_s(self) -> float:
        """Frame count over average rate, in seconds."""
        return float(self.frame_count / self.fps)

    @property
    def is_constant_rate(self) -> bool:
        """Whether every frame lies within half a frame of where the average rate puts it."""
        expected = np.arange(self.frame_count) / float(self.fps)
        return bool(np.all(np.abs(self.times_s - expected) <= 0.5 / float(self.fps)))


@dataclass(frozen=True)
class FrameSample:
    """The frames to show: positions in presentation order, their times and the length of the video, in seconds."""

    indices: list[int]
    timestamps_s: list[float]
    duration_s: float


def sample_positions(
    frame_count: int, fps: float, duration_s: float, sample_fps: float, max_frames: int, skips_ends: bool = True
) -> np.ndarray:
    """Positions of the frames to show, not yet whole numbers: the reference's choice."""
    wanted = max(1, min(round(sample_fps * duration_s), max_frames))
    start, end = 0, frame_count - 1
    if skips_ends and duration_s - 2 * SKIPPED_S > max_frames * sample_fps:
        start, end = int(SKIPPED_S * fps), min(int(frame_count - SKIPPED_S * fps), end)
    if start >= end:
        start, end = 0, frame_count - 1
    return np.linspace(start, end, wanted)


def choose_frames(
    info: VideoInfo, fps: float, max_frames: int, *, start_s: float | None = None, end_s: float | None = None
) -> FrameSample:
    """Sample a video as its checkpoint asks; in files of variable rate, the frames nearest to even times.

    Args:
        info: from `probe`.
        fps: frames to take for each second of the video.
        max_frames: the most to take.
        start_s, end_s: choose among the frames from `start_s` up to, not including, `end_s`, in seconds from the
            first frame. The time stamps and the duration stay those of the whole file, as for every choice.

    Raises:
        ValueError: a range that is empty or holds no frame.
    """
    rate, times_s = float(info.fps), np.arange(info.frame_count) / float(info.fps)
    duration_s = info.duration_s
    if not info.is_constant_rate:
        times_s = info.times_s
        duration_s = float(times_s[-1]) * info.frame_count / (info.frame_count - 1)  # the last frame lasts as the mean
    whole = start_s is None and end_s is None
    first, last = (0, info.frame_count - 1) if whole else _range(info, times_s, duration_s, start_s, end_s)
    count, length_s = last - first + 1, float(times_s[last] - times_s[first])
    if not info.is_constant_rate and count > 1:
        rate = (count - 1) / length_s
    positions = sample_positions(count, rate, count / rate, fps, max_frames, skips_ends=whole)
    if info.is_constant_rate:
        indices = np.unique(first + positions.astype(int))
    else:
        even_s = times_s[first] + positions / rate
        after = np.searchsorted(times_s, even_s).clip(1, info.frame_count - 1)
        is_before = even_s - times_s[after - 1] <= times_s[after] - even_s  # the nearest, and of two the earlier one
        indices = np.unique(after - is_before)
    return FrameSample(indices.tolist(), times_s[indices].tolist(), duration_s)


def _range(
    info: VideoInfo, times_s: np.ndarray, duration_s: float, start_s: float | None, end_s: float | None
) -> tuple[int, int]:
    """The first and last frame of a time range."""
    start_s, end_s = start_s or 0.0, float("inf") if end_s is None else end_s
    if start_s >= duration_s:
        raise ValueError(f"start is {start_s:g} s, but {info.path} ends at {duration_s:g} s")
    inside = np.flatnonzero((times_s >= start_s) & (times_s < end_s))
    if not len(inside):
        raise ValueError(f"{info.path} has no frame between {start_s:g} and {end_s:g} s; choose a longer range")
    return int(inside[0]), int(inside[-1])


def probe(path: str | Path, *, check_cancelled: Callable[[], None] = lambda: None) -> VideoInfo:
    """Read a video's frame times from its packets; nothing is decoded.

    All packets are passed over, as what a container states cannot be relied on: frame counts are missing (WebM,
    MPEG-TS, fragmented MP4) or include frames that an edit list hides.

    Args:
        path: the file.
        check_cancelled: called now and then; it may raise to stop.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a video, no video stream, or no frames.
    """
    path = video_path(path)
    if is_animated_webp(path):
        times_s = webp_times(path, check_cancelled)
        return VideoInfo(path, _mean_rate(times_s), times_s, None)
    with open_video(path) as (container, stream):
        table = packet_table(
            _checking(packets(container, stream, path), check_cancelled),
            container.format.name,
            stream.codec.canonical_name,
        )
        stated = stream.average_rate or stream.guessed_rate
        if table.frame_times is None:  # only the stream itself knows its rate
            stated = stream.guessed_rate or stated
        if not table.frame_count:
            raise ValueError(f"{path} has a video stream without frames; is the file complete?")
        times_s = np.arange(table.frame_count) / float(stated or ASSUMED_FPS)  # of a bare elementary stream
        if table.frame_times is not None and table.frame_times[0] < table.frame_times[-1]:
            times_s = (table.frame_times - table.frame_times[0]) * float(stream.time_base)
    return VideoInfo(path, Fraction(stated or _mean_rate(times_s)), times_s, table)


def _mean_rate(times_s: np.ndarray) -> Fraction:
    return Fraction(len(times_s) - 1) / Fraction(float(times_s[-1])) if times_s[-1] > 0 else Fraction(1)


def _checking(items: Iterator[Any], check: Callable[[], None]) -> Iterator[Any]:
    for number, item in enumerate(items):
        if number % 256 == 0:
            check()
        yield item
