"""Frames that a program hands over one by one, as a live source. No MLX."""

import time
from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np

from ..connections import Closed
from .frame_buffer import FrameBuffer, FrameSampler, StreamClock


class PushedFrames:
    """Fills a buffer from `push`, on the clock of live sources: the newest frames win.

    The program that pushes knows whether its camera runs, so there is no stall time-out.
    """

    def __init__(self, buffer: FrameBuffer, make_tile: Callable[[Any], np.ndarray], *, sample_interval_s: float):
        """
        Args:
            buffer: where tiles go.
            make_tile: what makes a tile, (tile_size, tile_size, 3) uint8, of a frame as `push` is given it; called for
                sampled frames only.
            sample_interval_s: seconds from one sampled frame to the next.
        """
        self._buffer = buffer
        self._sampler = FrameSampler(buffer, make_tile, sample_interval_s)
        self._clock = StreamClock()
        self._lock = Lock()  # frames may come from several threads
        self._is_open = True
        buffer.drops = True
        buffer.expect_nothing(True)

    def start(self) -> None:
        """As `LiveReader.start`; frames may have come before."""

    def push(self, frame: Any, seconds: float) -> bool:
        """Hand over the next frame.

        Args:
            frame: what `make_tile` takes. The last one is kept until the next one comes.
            seconds: when it is shown, on any clock that ascends; one that jumps begins again.

        Returns:
            Whether frames are still wanted: False once the captions have ended.

        Raises:
            ValueError: a frame that no tile can be made of.
        """
        with self._lock:
            if not self._is_open:
                return False
            try:
                self._sampler.add(self._clock.time_s(seconds, time.monotonic(), is_live=True), frame)
            except Closed:
                self._is_open = False
            return self._is_open

    def finish(self) -> None:
        """There will be no more frames: the captions end after those that are left."""
        with self._lock:
            if not self._is_open:
                return
            self._is_open = False
            try:
                self._sampler.end()
            except Closed:
                return

    def fail(self, error: Exception) -> None:
        """End the captions with an error, in the thread that makes them."""
        with self._lock:
            self._is_open = False
            self._buffer.fail(error)

    def close(self) -> None:
        """No frame is wanted any more."""
        self._buffer.close()
