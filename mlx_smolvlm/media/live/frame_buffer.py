"""Sampled frames on their way from a live source to the model."""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition
from typing import Any

import numpy as np

from ..connections import Closed
from ..video.timeline import GAP_S

EPSILON_S = 1e-6  # sampling times are sums of fractions
ROUNDING = 1e-3  # of an interval: containers round times


@dataclass(frozen=True)
class LiveFrame:
    """A sampled frame.

    Attributes:
        sample_s: the time that was to be sampled, in seconds since the source's first frame.
        time_s: the time of the frame, at or just after that.
        tile: as the encoder sees it.
        arrived_s: when it came (`time.monotonic()`).
    """

    sample_s: float
    time_s: float
    tile: np.ndarray  # (tile_size, tile_size, 3) uint8
    arrived_s: float


class FrameBuffer:
    """Holds the newest frames. One thread puts frames in, another takes windows out.

    Attributes:
        newest_s: time of the last decoded frame, sampled or not, in seconds since the first.
        end_s: length of the source, once it has ended.
        dropped: frames that were sampled and never shown.
    """

    def __init__(self, max_frames: int):
        self.max_frames = max_frames
        self.drops = False  # newest wins; else the source waits for the model
        self.newest_s = -1.0
        self.end_s: float | None = None
        self.dropped = 0
        self._frames: deque[LiveFrame] = deque()
        self._changed = Condition()
        self._shown_s = -1.0  # the last sampling time that was shown
        self._wanted_s = 0.0  # earlier frames are of no use any more
        self._error: Exception | None = None
        self._closed = False
        self._last_sign_s = time.monotonic()
        self._may_stall = True

    # Called by the source's thread.

    def advance(self, time_s: float) -> None:
        """Note that a frame of this time was decoded. Raises Closed."""
        with self._changed:
            if self._closed:
                raise Closed
            self.newest_s = time_s
            self._last_sign_s = time.monotonic()
            self._changed.notify_all()

    def note_data(self) -> None:
        """Note that bytes came, if no frame yet: a source whose keyframes are far apart is not silent."""
        with self._changed:
            self._last_sign_s = time.monotonic()

    def put(self, frame: LiveFrame) -> None:
        """Add a frame; if there is no room, wait for some or drop the oldest. Raises Closed."""
        with self._changed:
            while len(self._frames) >= self.max_frames and not self.drops and not self._closed:
                self._changed.wait()
            if self._closed:
                raise Closed
            self._last_sign_s = time.monotonic()
            if frame.sample_s < self._wanted_s - EPSILON_S:
                return
            if len(self._frames) >= self.max_frames:
                self.dropped += self._frames.popleft().sample_s > self._shown_s
            self._frames.append(frame)

    def expect_nothing(self, expect: bool) -> None:
        """Note whether no frames are to be expected now, since the source is downloaded or connected to again."""
        with self._changed:
            self._may_stall = not expect
            self._last_sign_s = time.monotonic()

    def end(self, end_s: float) -> None:
        """Note that there will be no more frames."""
        with self._changed:
            self.end_s = end_s
            self._changed.notify_all()

    def fail(self, error: Exception) -> None:
        """Hand an error to the other thread."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    # Called by the model's thread.

    def wait_for(self, time_s: float, timeout_s: float) -> bool:
        """Wait until a time is reached or the source has ended. Raises what the source's thread has raised."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_reached(time_s), timeout_s)

    def silence_s(self) -> float:
        """Seconds since the last sign of life; 0 while none is due."""
        with self._changed:
            return time.monotonic() - self._last_sign_s if self._may_stall else 0.0

    @property
    def newest_sample_s(self) -> float:
        """The last sampling time of which there is a frame."""
        with self._changed:
            return self._frames[-1].sample_s if self._frames else 0.0

    def take(self, start_s: float, end_s: float, next_start_s: float) -> list[LiveFrame]:
        """The frames sampled from `start_s` to `end_s`, both included; those before `next_start_s` are released."""
        with self._changed:
            frames = [f for f in self._frames if start_s - EPSILON_S <= f.sample_s <= end_s + EPSILON_S]
            if frames and self.drops:
                self.dropped += sum(self._shown_s < f.sample_s < frames[0].sample_s for f in self._frames)
            if frames:
                self._shown_s = frames[-1].sample_s
            self._wanted_s = next_start_s
            while self._frames and self._frames[0].sample_s < next_start_s - EPSILON_S:
                self._frames.popleft()
            self._last_sign_s = time.monotonic()  # a source that waited for room was silent until now
            self._changed.notify_all()
            return frames

    def close(self) -> None:
        """Let the source's thread end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _is_reached(self, time_s: float) -> bool:
        if self._error is not None:
            raise self._error
        return self.newest_s >= time_s or self.end_s is not None


class FrameSampler:
    """Puts one frame of each interval into a buffer, as a tile; the others cost nothing."""

    def __init__(self, buffer: FrameBuffer, make_tile: Callable[[Any], np.ndarray], interval_s: float):
        """`make_tile` makes a tile of whatever `add` is given as a frame."""
        self._buffer = buffer
        self._make_tile = make_tile
        self._interval_s = interval_s
        self._last_sample = -1  # counted in intervals from the first frame
        self._step_s = 0.0  # between the last two frames
        self._unsampled: Any = None  # the last frame, if it was not sampled

    def add(self, time_s: float, frame: Any) -> None:
        """Note a frame that is shown at this time. Raises Closed."""
        sample = math.floor(time_s / self._interval_s + ROUNDING)
        self._unsampled = frame
        if sample > self._last_sample:
            self._last_sample, self._unsampled = sample, None
            self._put(sample * self._interval_s, time_s, frame)
        if time_s > self._buffer.newest_s >= 0:
            self._step_s = time_s - self._buffer.newest_s
        self._buffer.advance(time_s)

    def end(self) -> None:
        """Note that there will be no more frames. Raises Closed."""
        if self._unsampled is not None:  # a video is shown to its last frame
            self._put(self._buffer.newest_s, self._buffer.newest_s, self._unsampled)
            self._unsampled = None
        self._buffer.end(round(self._buffer.newest_s + self._step_s, 6))

    def _put(self, sample_s: float, time_s: float, frame: Any) -> None:
        self._buffer.put(LiveFrame(sample_s, time_s, self._make_tile(frame), time.monotonic()))


class StreamClock:
    """Presentation times -> seconds since the first frame, ascending whatever the source does.

    A live source that starts again, jumps or has no times goes on by the time that has passed meanwhile; a file, which
    may hold several recordings, by the time from one frame to the next.
    """

    MAX_JUMP_S = 10.0  # beyond what has passed; a longer gap of a live source is a jump of its clock

    def __init__(self) -> None:
        self._offset_s: float | None = None
        self._last_s = 0.0
        self._last_arrival_s = 0.0
        self._step_s = 0.0
        self._has_begun = False

    def restart(self) -> None:
        """Take the next time as a new beginning."""
        self._offset_s = None

    def time_s(
        self, stamp_s: float | None, arrival_s: float, *, is_live: bool, longest_gap_s: float = GAP_S[False]
    ) -> float:
        """The time of a frame with this presentation time (None: it has none) that came at this moment.

        `longest_gap_s` is that of a file; what is longer is a jump of its clock.
        """
        if self._last_arrival_s == 0.0:
            self._last_arrival_s = arrival_s
        passed_s = arrival_s - self._last_arrival_s
        time_s = None if stamp_s is None or self._offset_s is None else stamp_s + self._offset_s
        latest_s = self._last_s + (passed_s + self.MAX_JUMP_S if is_live else longest_gap_s)
        if time_s is None or not self._last_s <= time_s <= latest_s:
            went_s = passed_s if is_live or not self._has_begun else self._step_s
            time_s = self._last_s + went_s
            self._offset_s = None if stamp_s is None else time_s - stamp_s
        elif time_s > self._last_s:
            self._step_s = time_s - self._last_s
        self._last_s, self._last_arrival_s, self._has_begun = time_s, arrival_s, True
        return time_s
