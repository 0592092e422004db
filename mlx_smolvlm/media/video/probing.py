"""Video file -> which of its frames the model sees, and their times. PyAV only, no MLX.

Sampling is that of transformers, `models/smolvlm/video_processing_smolvlm.py`, on the frame count and the
average rate that `video_utils.read_video_pyav` takes from the container. Where that would be wrong for users
it is done better: frame counts are those of the packets, and files of variable frame rate are sampled evenly
in time, with each frame's true time.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from .animated_webp import animation_times_ms, is_pillow_animation
from .container import may_jump, open_video, packets, refuse_stills, sound_beside, video_path
from .content import missing_part, unread_recordings
from .packet_table import PacketTable, packet_table

ASSUMED_FPS = 25  # of a stream that states none, as FFmpeg assumes
SKIPPED_S = 1  # left out at both ends of a long video, where titles and credits are
HELD_INTERVALS = 1.5  # a last frame that is shown for longer stands still
HELD_SHARE = 0.1  # of the video, from which on that matters
SOUND_GOES_ON_S = 1.0  # after the last frame: less is the padding of sound
STATES_DURATIONS = {"gif", "apng"}  # and MP4: of each frame, also of the last one
_BLOCK = 4096  # frames whose times are computed at once


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a file's video stream before a frame is decoded. Its memory is that of `packets`.

    Attributes:
        path: the file.
        fps: the average rate that the file states, or has.
        frame_count: frames in the file, by its packets.
        frame_times: (frame_count,) ascending ticks, one for each frame; None if only the rate tells times.
        tick_s: seconds a tick.
        packets: how to reach a frame; None for what Pillow reads (`animated_webp`).
        last_frame_s: how long the last frame is shown, where the file says so.
        missing: what of the file cannot be read, if it ends before it should: "2.1 of 4 MB are there".
    """

    path: Path
    fps: Fraction
    frame_count: int
    frame_times: np.ndarray | None
    tick_s: float
    packets: PacketTable | None
    last_frame_s: float | None = None
    missing: str | None = None

    @property
    def digest(self) -> bytes:
        """Equal for equal streams, wherever they lie."""
        return blake2b(self.path.read_bytes(), digest_size=16).digest() if self.packets is None else self.packets.digest

    def time_s(self, index: Any) -> Any:
        """When a frame is shown, in seconds from the first one; of an array of positions, an array of float64."""
        if self.frame_times is None:
            return index / float(self.fps)
        first = int(self.frame_times[0])
        ticks = self.frame_times[index]
        return (ticks.astype(np.int64) - first) * self.tick_s

    @property
    def times_s(self) -> np.ndarray:
        """When each frame is shown, (frame_count,) float64 seconds from the first one."""
        return np.asarray(self.time_s(np.arange(self.frame_count)))

    def shown_s(self, index: Any) -> Any:
        """As `time_s`, but at a constant rate the times that it gives, as in the reference."""
        return index / float(self.fps) if self.is_constant_rate else self.time_s(index)

    @property
    def duration_s(self) -> float:
        """How long the video is, in seconds: frame count over average rate, or its true length at a variable rate."""
        if self.is_constant_rate:
            return float(self.frame_count / self.fps)
        return float(self.time_s(self.frame_count - 1)) + (self.last_frame_s or self._mean_interval_s)

    @property
    def held_s(self) -> float:
        """How much longer than the others the last frame is shown."""
        if self.is_constant_rate or self.last_frame_s is None:
            return 0.0
        held_s = self.last_frame_s - self._mean_interval_s
        return held_s if held_s > HELD_SHARE * self.duration_s else 0.0

    @cached_property
    def is_constant_rate(self) -> bool:
        """Whether every frame lies within half a frame of where the average rate puts it, and the last is no longer."""
        interval_s = 1 / float(self.fps)
        if (self.last_frame_s or 0) > HELD_INTERVALS * interval_s:
            return False
        for start in range(0, self.frame_count, _BLOCK):
            block = np.arange(start, min(start + _BLOCK, self.frame_count))
            if np.any(np.abs(self.time_s(block) - block / float(self.fps)) > 0.5 * interval_s):
                return False
        return True

    @property
    def _mean_interval_s(self) -> float:
        if self.frame_count == 1:
            return 1 / float(self.fps)
        return float(self.time_s(self.frame_count - 1)) / (self.frame_count - 1)


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
    whole = start_s is None and end_s is None
    first, last = (0, info.frame_count - 1) if whole else _range(info, start_s, end_s)
    count, begin_s, rate = last - first + 1, float(info.shown_s(first)), float(info.fps)
    if info.is_constant_rate:
        positions = sample_positions(count, rate, count / rate, fps, max_frames, skips_ends=whole)
        indices = np.unique(first + positions.astype(int))
    else:
        length_s = float(info.shown_s(last)) - begin_s
        if length_s > 0:  # frames may share a time
            rate = (count - 1) / length_s
        # A last frame that stands still counts as often as it would have been taken meanwhile.
        held_s = info.held_s if last == info.frame_count - 1 else 0.0
        held_s = min(held_s, max(0.0, (end_s or np.inf) - begin_s - length_s))
        steps = count + round(held_s * rate)
        positions = sample_positions(steps, rate, steps / rate, fps, max_frames, skips_ends=whole)
        indices = np.unique([_nearest(info, begin_s + position / rate) for position in positions])
    return FrameSample(indices.tolist(), info.shown_s(indices).tolist(), info.duration_s)


def _nearest(info: VideoInfo, time_s: float) -> int:
    """The frame shown nearest to a time; of two, the earlier one."""
    after = min(max(_first_at(info, time_s), 1), info.frame_count - 1)
    if after == 0:
        return 0
    is_before = time_s - info.shown_s(after - 1) <= info.shown_s(after) - time_s
    return after - int(is_before)


def _first_at(info: VideoInfo, time_s: float) -> int:
    """The first frame that is shown at this time or later."""
    return bisect_left(range(info.frame_count), time_s, key=info.shown_s)


def _range(info: VideoInfo, start_s: float | None, end_s: float | None) -> tuple[int, int]:
    """The first and last frame of a time range."""
    start_s, end_s = start_s or 0.0, float("inf") if end_s is None else end_s
    if start_s >= info.duration_s:
        raise ValueError(f"start is {start_s:g} s, but {info.path} ends at {info.duration_s:g} s")
    first, end = _first_at(info, start_s), _first_at(info, end_s)
    if first == info.frame_count and info.held_s:  # the last frame, which stands still, is all that is seen
        first = end - 1
    if first >= end:
        raise ValueError(f"{info.path} has no frame between {start_s:g} and {end_s:g} s; choose a longer range")
    return first, end - 1


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
    if is_pillow_animation(path):
        times_ms = animation_times_ms(path, check_cancelled)
        info = VideoInfo(path, _mean_rate(times_ms[:-1], 1e-3), len(times_ms) - 1, times_ms[:-1], 1e-3, None)
        return replace(info, last_frame_s=(times_ms[-1] - times_ms[-2]) / 1e3)
    missing = missing_part(path)
    with open_video(path) as (container, stream):
        streams = [stream, *sound_beside(container)]
        table = packet_table(
            _checking(packets(container, streams, path), check_cancelled),
            container.format.name,
            stream.codec.canonical_name,
            time_base=float(stream.time_base),
            stream_index=stream.index,
            may_jump=may_jump(container),
            is_cut_off=missing is not None,
        )
        if not table.frame_count:
            raise ValueError(f"{path} has a video stream without frames; is the file complete?")
        refuse_stills(container, stream, table.frame_count, path)
        info = _described(path, container, stream, table, is_cut_off=missing is not None)
    return replace(info, missing=missing or unread_recordings(path))


def _described(path: Path, container: Any, stream: Any, table: PacketTable, *, is_cut_off: bool) -> VideoInfo:
    stated = stream.average_rate or stream.guessed_rate
    if table.frame_times is None:  # only the stream itself knows its rate
        stated = stream.guessed_rate or stated
    times, tick_s = table.frame_times, float(stream.time_base)
    if times is not None and times[0] == times[-1]:
        times = None  # a bare elementary stream, or a single frame
    if times is None and not stated:
        stated = Fraction(ASSUMED_FPS)
    info = VideoInfo(path, Fraction(stated or _mean_rate(times, tick_s)), table.frame_count, times, tick_s, table)
    return replace(info, last_frame_s=_last_frame_s(container, info, table, is_cut_off))


def _last_frame_s(container: Any, info: VideoInfo, table: PacketTable, is_cut_off: bool) -> float | None:
    """How long the last frame is shown: as its packet says, or for as long as sound goes on."""
    is_mov = container.format.name.startswith("mov")
    is_stated = is_mov or container.format.name in STATES_DURATIONS
    own_s = table.last_duration * info.tick_s if is_stated else 0.0
    if table.frame_times is None or is_cut_off:
        return own_s or None
    last = int(table.frame_times[-1])
    if may_jump(container) and info.frame_count > 1:  # as the one before: a clock's gaps say nothing of it
        own_s = (last - int(table.frame_times[-2])) * info.tick_s
    held_s = (table.sound_end - last) * info.tick_s
    if container.duration is not None and not table.segments.is_joined and not may_jump(container):
        begin = container.start_time if is_mov and container.start_time else 0
        last_s = (last + table.segments.shifts[0]) * info.tick_s
        stated_s = (begin + container.duration) / 1e6 - last_s
        held_s = max(held_s, stated_s)
        if not is_mov and not container.streams.audio:  # then it is the last frame that ends there
            own_s = own_s or max(0.0, stated_s)
    usual_s = own_s or float(1 / info.fps)
    return held_s if held_s > max(usual_s + SOUND_GOES_ON_S, HELD_INTERVALS * usual_s) else own_s or None


def _mean_rate(times: np.ndarray | None, tick_s: float) -> Fraction:
    if times is None or times[0] == times[-1]:
        return Fraction(1)
    return Fraction(len(times) - 1) / Fraction((int(times[-1]) - int(times[0])) * tick_s)


def _checking(items: Iterator[Any], check: Callable[[], None]) -> Iterator[Any]:
    for number, item in enumerate(items):
        if number % 256 == 0:
            check()
        yield item
