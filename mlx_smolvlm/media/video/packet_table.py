"""The packets of a video stream, before anything is decoded: which frames there are and how to reach them."""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import islice
from typing import Any
from zlib import crc32

import numpy as np

from .timeline import Segments, Timeline

# Codecs whose keyframes start afresh: what follows one in presentation order needs nothing from before it.
# Not so GIF and APNG, whose frames are drawn over each other.
_RESTARTING = {"av1", "dnxhd", "ffv1", "h264", "hevc", "mjpeg", "mpeg1video", "mpeg2video", "mpeg4", "prores"}
_RESTARTING |= {"vp8", "vp9"}
GUESSES_PTS = {"avi"}  # has no presentation times: FFmpeg's are wrong where frames are reordered
NO_TIME = -(2**31)  # fits the narrower columns, too
_ABSENT = np.iinfo(np.int64).min
_BLOCK = 256  # packets that are held as Python's objects
_KEY, _EMPTY, _HIDDEN = 1, 2, 4
_THEORA_HEADER = 0x80  # bit of the first byte


@dataclass(frozen=True)
class PacketTable:
    """The packets of a stream, and the frames that come of them: at most 16 bytes a frame, also while it is made.

    Times are in the stream's time base. They ascend from recording to recording where several were joined, or the
    clock of one jumps: `segments` tells what was taken from the file's own times.

    Attributes:
        pts, dts: (num_packets,) int32, or int64 where times are longer, in file order, which is the order of
            decoding; NO_TIME where there is none.
        flags: (num_packets,) uint8; see `is_keyframe` and `is_empty`.
        segments: how times differ from the file's own.
        frame_times: (frame_count,) as `pts`, ascending; None if the file has no times at all.
        frame_count: frames that decoding everything would show.
        is_matched_by_time: whether a decoded frame is recognised by its presentation time; otherwise frames can only
            be counted from the start.
        restarts: whether decoding may begin at any keyframe.
        last_duration: how long the last frame is shown, as its packet says; 0 if it does not.
        sound_end: when the last sound ends, if packets of sound were passed; otherwise 0.
        digest: equal for equal streams, wherever they lie: of all times and sizes and of the keyframes' content.
    """

    pts: np.ndarray
    dts: np.ndarray
    flags: np.ndarray
    segments: Segments
    frame_times: np.ndarray | None
    frame_count: int
    is_matched_by_time: bool
    restarts: bool
    last_duration: int
    sound_end: int
    digest: bytes

    @property
    def is_keyframe(self) -> np.ndarray:
        """(num_packets,) bool."""
        return np.asarray((self.flags & _KEY) != 0)

    @property
    def is_empty(self) -> np.ndarray:
        """(num_packets,) bool; such a packet shows the frame before once more."""
        return np.asarray((self.flags & _EMPTY) != 0)

    @cached_property
    def _keys(self) -> np.ndarray:
        """Positions of the keyframes that have a time."""
        return np.flatnonzero(self.is_keyframe & (self.pts != NO_TIME)).astype(np.int32)

    def position(self, pts: int) -> int:
        """Where in the file the packet with this presentation time is."""
        return int(np.argmax(self.pts == pts))

    def entry_points(self, pts: int) -> Iterator[int]:
        """Positions from which decoding reaches the frame at this time, the nearest first, the file's start last.

        A keyframe serves frames that follow it both in the file and in presentation: in an open group of pictures,
        those shown before it need its predecessor too.
        """
        if self.restarts:
            before = self._keys[: int(np.searchsorted(self._keys, self.position(pts), side="right"))]
            yield from (int(key) for key in before[::-1] if key and self.pts[key] <= pts)
        yield 0


def packet_table(
    packets: Iterable[Any],
    format_name: str,
    codec_name: str,
    *,
    time_base: float,
    stream_index: int,
    may_jump: bool,
    is_cut_off: bool = False,
) -> PacketTable:
    """Read all packets (PyAV's) and order their frames by time.

    Packets before the first keyframe (a recording that was joined in the middle), and those shown before it, cannot
    be decoded and do not count; nor do those that an edit list hides.

    Args:
        packets: of the stream, and maybe of one of sound, which tells gaps from jumps of the clock.
        format_name, codec_name: FFmpeg's names.
        time_base: seconds a tick.
        stream_index: of the video stream.
        may_jump: whether the format is made to be cut and joined anywhere, so that a long gap is a jump of the clock.
        is_cut_off: whether the file ends early; its last packet is then no frame if it is damaged.
    """
    timeline = Timeline(time_base, may_jump)
    reading = _Reading(timeline, stream_index, time_base, format_name in GUESSES_PTS, codec_name == "theora")
    pts, dts, flags = reading.columns(packets, is_cut_off)
    segments = reading.timeline.segments
    counts = _decodable(flags, segments.positions)
    timed = counts & (pts != NO_TIME)
    for start, end in _keyed(flags, segments.positions):
        timed[start:end] &= pts[start:end] >= pts[start]
    frame_times = pts[timed]
    frame_times.sort()
    # The second field of an interlaced picture may come without a time of its own: the first one's stands for both.
    is_matched = bool(2 * timed.sum() >= counts.sum() and (frame_times[1:] > frame_times[:-1]).all())
    is_matched &= format_name not in GUESSES_PTS
    if not is_matched:
        del frame_times
        frame_times = dts[counts]
        frame_times.sort()
    return PacketTable(
        pts=pts,
        dts=dts,
        flags=flags,
        segments=segments,
        frame_times=frame_times if is_matched or (dts[counts] != NO_TIME).all() else None,
        frame_count=len(frame_times),
        is_matched_by_time=is_matched,
        restarts=is_matched and codec_name in _RESTARTING,
        last_duration=reading.last_duration,
        sound_end=reading.timeline.sound_end,
        digest=reading.digest.digest(),
    )


class _Reading:
    """Packets as they are read, in columns that grow."""

    def __init__(self, timeline: Timeline, stream_index: int, time_base: float, guesses_pts: bool, has_headers: bool):
        self.timeline = timeline
        self.digest = blake2b(digest_size=16)
        self.last_duration = 0
        self._last_time: int | None = None
        self._is_damaged = False  # the last packet
        self._stream_index = stream_index
        self._time_base = time_base
        self._guesses_pts = guesses_pts
        self._has_headers = has_headers

    def columns(self, packets: Iterable[Any], is_cut_off: bool) -> list[np.ndarray]:
        """Times of presentation and of decoding, and flags."""
        pts, dts, flags = array("i"), array("i"), array("B")
        rows = self._rows(packets)
        while block := list(islice(rows, _BLOCK)):
            table = np.array(block, np.int64)
            self.digest.update(np.ascontiguousarray(table[:, :7]).tobytes())
            shifts = table[:, 7]
            pts, dts = (_grown(times, table[:, n], shifts) for n, times in enumerate((pts, dts)))
            bits = table[:, 2] * _KEY | table[:, 3] * _EMPTY | table[:, 4] * _HIDDEN
            flags.frombytes(bits.astype(np.uint8).tobytes())
        if is_cut_off and self._is_damaged:
            for column in (pts, dts, flags):
                column.pop()
        columns = [np.frombuffer(column, column.typecode) if column else np.zeros(0, int) for column in (pts, dts)]
        for position, gap in self.timeline.real_gaps(len(flags)):
            columns = [_later(column, position, gap) for column in columns]
            self.timeline.segments.add_back(position, gap)
        return [*columns, np.frombuffer(flags, np.uint8) if flags else np.zeros(0, np.uint8)]

    def _rows(self, packets: Iterable[Any]) -> Iterator[tuple[int, ...]]:
        for packet in packets:
            if packet.stream_index != self._stream_index:
                self._hear(packet)
            elif packet.size or packet.pts is not None:  # not the one that only drains the decoder
                pts, dts, is_keyframe = packet.pts, packet.dts, packet.is_keyframe
                is_header = self._has_headers and packet.size and memoryview(packet)[0] & _THEORA_HEADER
                if is_header:  # of another recording, which give no frame
                    pts, dts, is_keyframe = None, None, False
                shift = self.timeline.shift(None if self._guesses_pts else pts, dts, is_keyframe)
                self._is_damaged = packet.is_corrupt
                time = dts if pts is None else pts
                if time is not None and (self._last_time is None or time - shift >= self._last_time):
                    self._last_time, self.last_duration = time - shift, packet.duration or 0
                content = crc32(packet) if is_keyframe else 0
                flags = (is_keyframe, packet.size == 0, bool(packet.is_discard or is_header))
                yield (_time(pts), _time(dts), *flags, packet.size, content, shift)

    def _hear(self, packet: Any) -> None:
        if packet.pts is not None and packet.size:
            ticks = float(packet.time_base) / self._time_base
            self.timeline.hear(round(packet.pts * ticks), round((packet.pts + (packet.duration or 0)) * ticks))


def _grown(column: "array[int]", times: np.ndarray, shifts: np.ndarray) -> "array[int]":
    """A column with more times at its end, which is widened if they are too long for it."""
    moved = np.where(times == _ABSENT, NO_TIME, times - shifts)
    if column.typecode == "i" and (moved.min() < NO_TIME or moved.max() > np.iinfo(np.int32).max):
        column = array("q", column)
    column.frombytes(moved.astype(column.typecode).tobytes())
    return column


def _later(column: np.ndarray, position: int, gap: int) -> np.ndarray:
    """Times from a position on, later by a gap that was taken for a jump."""
    wide = column.astype(np.int64)
    wide[position:][wide[position:] != NO_TIME] += gap
    return wide if wide.max() > np.iinfo(np.int32).max else wide.astype(column.dtype)


def _keyed(flags: np.ndarray, positions: list[int]) -> Iterator[tuple[int, int]]:
    """For each recording the position of its first keyframe (its start, if it has none) and its end."""
    for start, end in zip(positions, [*positions[1:], len(flags)], strict=True):
        if start < end:
            yield start + int(np.argmax((flags[start:end] & _KEY) != 0)), end


def _decodable(flags: np.ndarray, positions: list[int]) -> np.ndarray:
    """Which packets give frames to show: those from the first keyframe of each recording on that are not hidden."""
    counts = np.asarray((flags & _HIDDEN) == 0)
    begun = 0
    for start, end in _keyed(flags, positions):
        counts[begun:start] = False
        begun = end
    return counts


def _time(ticks: int | None) -> int:
    return _ABSENT if ticks is None else ticks
