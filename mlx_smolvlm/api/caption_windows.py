"""The windows of a live source that captions are made of."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..media.live.frame_buffer import FrameBuffer, LiveFrame

LOG = logging.getLogger(__name__)
SLACK_S = 0.5  # beyond the stall time-out, within which a source reports its own stall


@dataclass(frozen=True)
class CaptionWindow:
    """Frames of a stretch of the source, and how many were dropped so far."""

    start_s: float
    end_s: float
    frames: "list[LiveFrame]"
    total_dropped: int

    @property
    def timestamps_s(self) -> list[float]:
        """When each frame is shown, from the window's start; a frame at its end belongs to its last second."""
        last_s = max(0.0, math.ceil(self.end_s - self.start_s) - 0.001)
        return [min(max(0.0, round(frame.time_s - self.start_s, 6)), last_s) for frame in self.frames]


def caption_windows(
    buffer: "FrameBuffer",
    name: str,
    window_s: float,
    every_s: float,
    sample_interval_s: float,
    num_frames: int,
    stall_timeout_s: float,
    wait_s: float,
    cancel: Event,
) -> Iterator[CaptionWindow | None]:
    """The windows that have frames, each as soon as it is full and asked for; until the source ends or `cancel`.

    None whenever `wait_s` seconds have passed and no window is full.
    """
    shown_s, end_s = -1.0, window_s
    while True:
        while not buffer.wait_for(end_s, wait_s) and not cancel.is_set():
            if buffer.silence_s() > stall_timeout_s + SLACK_S:
                raise ValueError(f"{name}: no frame came for {stall_timeout_s:g} s")
            yield None
        if cancel.is_set():
            return
        is_late = buffer.drops and buffer.newest_s - end_s > sample_interval_s
        is_last = buffer.end_s is not None and (is_late or end_s >= buffer.end_s)
        end_s = round(max(end_s, buffer.newest_sample_s) if is_late else end_s, 6)
        start_s = round(max(0.0, end_s - window_s), 6)
        frames = buffer.take(start_s, end_s, end_s + every_s - window_s)[-num_frames:]
        if is_last:
            end_s = buffer.end_s or end_s
        if frames and frames[-1].sample_s > shown_s:
            shown_s = frames[-1].sample_s
            yield CaptionWindow(start_s, end_s, frames, buffer.dropped)
        if is_last:
            LOG.info("%s has ended", name)
            return
        end_s += every_s
