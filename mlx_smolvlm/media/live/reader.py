"""The thread that reads a live source: decodes, samples, makes tiles, and reconnects. No MLX."""

import logging
import time
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
from PIL import Image

from ..connections import Closed, Patience, Stalled
from ..prefetch import as_exception
from ..urls import printable
from ..video.container import decoded, demuxed, may_jump, reason
from ..video.content import missing_part, unread_recordings
from ..video.packet_table import GUESSES_PTS
from ..video.timeline import GAP_S
from ..video.upright import Upright
from .frame_buffer import FrameBuffer, FrameSampler, StreamClock
from .naming import LiveSource
from .source import OpenSource, open_live_source

LOG = logging.getLogger(__name__)
FIRST_PAUSE_S = 0.5  # before connecting again; doubled each time
LONGEST_PAUSE_S = 8.0
CLOSING_S = 0.5  # how long a closed thread is waited for
OPENING = 3  # stall time-outs in which a source that sends must turn out to be a video
MOST_REORDERED = 32  # frames that a decoder holds back; H.264 allows 16
ASSUMED_FPS = 25  # of a file that states none


class LiveReader:
    """Reads a source into a buffer until it ends or is closed.

    Files are read as fast as the buffer takes them, unless `realtime` asks for their own pace; then, as from all
    live sources, the newest frames win. Network sources that were read once are connected to again, at most
    `retries` times in a row.
    """

    def __init__(
        self,
        source: LiveSource,
        buffer: FrameBuffer,
        make_tile: Callable[[Image.Image], np.ndarray],
        *,
        sample_interval_s: float,
        realtime: bool,
        stall_timeout_s: float,
        retries: int,
        wanted_edge: int = 512,
    ):
        self._source = source
        self._buffer = buffer
        self._make_tile = make_tile
        self._sampler = FrameSampler(buffer, self._tile, sample_interval_s)
        self._realtime = realtime
        self._retries = retries
        self._wanted_edge = wanted_edge
        self._opening_s: float | None = None  # since when it is being opened
        self._last_frame_s = 0.0  # when the last frame came, or the source was opened
        self._closing = Event()
        self._patience = Patience(stall_timeout_s, closing=self._closing)
        self._clock = StreamClock()
        self._frame_count = 0
        self._begun_s = 0.0
        self._due_s: list[float] = []  # a heap: when the frames are shown that are still to come, where packets say it
        self._upright: Upright | None = None
        self._can_return = False
        self._thread = Thread(target=self._work, name="mlx_smolvlm live source", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading and wait for the thread.

        One that waits within FFmpeg for a network or a device is left to end by its own time limit.
        """
        self._closing.set()
        self._buffer.close()
        self._thread.join(CLOSING_S)

    def _work(self) -> None:
        try:
            self._read_and_reconnect()
        except Closed:
            pass
        except BaseException as raised:  # whatever it is, it belongs to the consumer
            error = as_exception(raised)
            known = isinstance(error, ValueError | OSError | MemoryError)
            self._buffer.fail(error if known else ValueError(f"{self._source.name}: {_printable_reason(error)}"))
        finally:
            self._upright = None  # it has threads

    def _note_missing(self) -> None:
        """Say that a file ends before it should; it is shown as far as it goes."""
        path = Path(self._source.target) if self._source.kind == "file" and self._source.target else None
        if path is not None and (part := missing_part(path) or unread_recordings(path)):
            LOG.warning("%s is incomplete: %s", self._source.name, part)

    def _read_and_reconnect(self) -> None:
        attempts = 0
        failure: Exception | None = None  # why the source was lost; None if it has ended
        while True:
            count = self._frame_count
            latest = self._read()
            if attempts == 0 or self._frame_count > count:
                attempts, failure = 0, latest
            if attempts == self._retries or self._frame_count == 0 or not self._can_return:
                break
            attempts += 1
            what = f"is lost ({_printable_reason(latest)})" if latest else "has ended"
            LOG.warning("%s %s; connecting again (%d of %d)", self._source.name, what, attempts, self._retries)
            self._buffer.expect_nothing(True)
            self._sleep(min(FIRST_PAUSE_S * 2 ** (attempts - 1), LONGEST_PAUSE_S))
        if failure is not None:
            name, text = self._source.name, _printable_reason(failure)
            raise ValueError(text if name in text else f"{name}: {text}")
        self._sampler.end()

    def _read(self) -> Exception | None:
        """Read to the end, or to what is returned."""
        import av

        try:
            self._buffer.expect_nothing(False)
            self._last_frame_s = self._opening_s = time.monotonic()
            with open_live_source(
                self._source, self._patience, self._buffer.expect_nothing, self._note_data, self._wanted_edge
            ) as opened:
                self._note_missing()
                self._can_return = self._source.is_network and opened.is_live
                self._read_frames(opened)
            if self._frame_count == 0:
                raise ValueError(f"{self._source.name} holds no frame that can be decoded; is it complete?")
        except (ValueError, OSError, av.FFmpegError) as error:
            return error
        return None

    def _read_frames(self, opened: OpenSource) -> None:
        is_paced = self._realtime or self._source.device_format == "lavfi"  # which would give all at once
        self._buffer.drops = opened.is_live or self._realtime
        self._clock.restart()
        self._upright = Upright(opened.stream)
        self._due_s = []
        self._opening_s = None
        for frame in self._frames(opened):
            now_s = time.monotonic()
            if self._frame_count == 0:
                self._begun_s = now_s
            self._frame_count += 1
            self._last_frame_s = now_s
            stamp_s = self._stamp_s(frame, opened)
            longest_gap_s = GAP_S[may_jump(opened.container)]
            time_s = self._clock.time_s(stamp_s, now_s, is_live=opened.is_live, longest_gap_s=longest_gap_s)
            if is_paced:
                self._sleep(self._begun_s + time_s - now_s)
            self._sampler.add(time_s, frame)

    def _tile(self, frame: Any) -> np.ndarray:
        assert self._upright is not None
        return self._make_tile(self._upright(frame))

    def _frames(self, opened: OpenSource) -> Iterator[Any]:
        """Decoded frames in order; those that are damaged are left out."""
        import av

        packets = demuxed(opened.container, opened.stream)
        last_s = time.monotonic()
        while not self._closing.is_set():
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.ExitError:  # a time limit within FFmpeg; RTSP alone can be read on
                limit_s = self._patience.stall_timeout_s
                if time.monotonic() - last_s >= limit_s or opened.container.format.name != "rtsp":
                    raise Stalled(f"nothing came for {limit_s:g} s") from None
                packets = demuxed(opened.container, opened.stream)
                continue
            except av.error.BlockingIOError:  # a device that has no frame yet
                self._sleep(0.01)
                packets = demuxed(opened.container, opened.stream)
                continue
            except av.FFmpegError as error:
                if opened.is_live:
                    raise
                LOG.warning("%s is damaged: it ends here (%s)", self._source.name, reason(error))
                return
            last_s = time.monotonic()
            self._note_data()
            if opened.container.format.name in GUESSES_PTS and packet.size and packet.dts is not None:
                heappush(self._due_s, float(packet.dts * packet.time_base))
                if len(self._due_s) > MOST_REORDERED:  # what was damaged shows nothing
                    heappop(self._due_s)
            yield from (frame for frame in decoded(packet) if not frame.is_corrupt)  # as where a stream is joined
        raise Closed

    def _note_data(self) -> None:
        """Bytes came: the source is not silent, even if there is no frame for a while."""
        now_s = time.monotonic()
        if self._opening_s is not None and now_s - self._opening_s > OPENING * self._patience.stall_timeout_s:
            return  # of bytes that turn out to be no video, there may be no end
        self._buffer.note_data()
        if now_s - self._last_frame_s > self._patience.stall_timeout_s and self._frame_count == 0:
            self._last_frame_s = now_s
            LOG.warning("%s sends data, but no whole frame yet: waiting for a keyframe", self._source.name)

    def _stamp_s(self, frame: Any, opened: OpenSource) -> float | None:
        """When the container says that a frame is shown; live sources without times are timed by arrival."""
        if opened.is_live and not opened.has_times and not self._realtime:
            return None
        if self._due_s:
            return heappop(self._due_s)
        if frame.time is not None:
            return float(frame.time)
        rate = opened.stream.guessed_rate or ASSUMED_FPS
        return None if opened.is_live else float((self._frame_count - 1) / rate)

    def _sleep(self, seconds: float) -> None:
        if self._closing.wait(max(seconds, 0)):
            raise Closed


def _printable_reason(error: Exception) -> str:
    return printable(reason(error), 300)
