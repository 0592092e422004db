"""The packets of a video stream, before anything is decoded: which frames there are and how to reach them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from zlib import crc32

import numpy as np

# Codecs whose keyframes start afresh: what follows one in presentation order needs nothing from before it.
# Not so GIF and APNG, whose frames are drawn over each other.
_RESTARTING = {"av1", "dnxhd", "ffv1", "h264", "hevc", "mjpeg", "mpeg1video", "mpeg2video", "mpeg4", "prores"}
_RESTARTING |= {"vp8", "vp9"}
_GUESSES_PTS = {"avi"}  # has no presentation times: FFmpeg's are wrong where frames are reordered
NO_TIME = np.iinfo(np.int64).min


@dataclass(frozen=True)
class PacketTable:
    """The packets of a stream, and the frames that come of them. Times are in the stream's time base.

    Attributes:
        pts, dts: (num_packets,) int64, in file order, which is the order of decoding; NO_TIME where there is none.
        is_keyframe: (num_packets,) bool.
        is_empty: (num_packets,) bool; such a packet shows the frame before once more.
        frame_times: (frame_count,) int64, ascending; None if the file has no times at all.
        frame_count: frames that decoding everything would show.
        is_matched_by_time: whether a decoded frame is recognised by its presentation time; otherwise frames can only
            be counted from the start.
        restarts: whether decoding may begin at any keyframe.
        digest: equal for equal streams, wherever they lie: of all times and sizes and of the keyframes' content.
    """

    pts: np.ndarray
    dts: np.ndarray
    is_keyframe: np.ndarray
    is_empty: np.ndarray
    frame_times: np.ndarray | None
    frame_count: int
    is_matched_by_time: bool
    restarts: bool
    digest: bytes

    def position(self, pts: int) -> int:
        """Where in the file the packet with this presentation time is."""
        return int(np.argmax(self.pts == pts))

    def entry_points(self, pts: int) -> Iterator[int]:
        """Positions from which decoding reaches the frame at this time, the nearest first, the file's start last.

        A keyframe serves frames that follow it both in the file and in presentation: in an open group of pictures,
        those shown before it need its predecessor too.
        """
        if self.restarts:
            before = slice(0, self.position(pts) + 1)
            keys = np.flatnonzero(self.is_keyframe[before] & (self.pts[before] <= pts) & (self.pts[before] != NO_TIME))
            yield from (int(key) for key in keys[::-1] if key)
        yield 0


def packet_table(packets: Iterable[Any], format_name: str, codec_name: str) -> PacketTable:
    """Read all packets (PyAV's) and order their frames by time.

    Packets before the first keyframe (a recording that was joined in the middle), and those shown before it, cannot
    be decoded and do not count; nor do those that an edit list hides.
    """
    rows = []
    for packet in packets:
        if packet.size or packet.pts is not None:  # not the one that only drains the decoder
            flags = (packet.is_keyframe, packet.size == 0, packet.is_discard)
            content = crc32(packet) if packet.is_keyframe else 0
            rows.append((_time(packet.pts), _time(packet.dts), *flags, packet.size, content))
    table = np.array(rows, np.int64).reshape(-1, 7)
    pts, dts, *columns = table[:, :5].T
    is_keyframe, is_empty, is_hidden = (column.astype(bool) for column in columns)
    start = int(np.argmax(is_keyframe)) if rows else 0
    counts = (np.arange(len(rows)) >= start) & ~is_hidden
    timed = counts & (pts != NO_TIME)
    if len(rows):
        timed &= pts >= pts[start]
    frame_times = np.sort(pts[timed])
    # The second field of an interlaced picture may come without a time of its own: the first one's stands for both.
    is_matched = bool(2 * timed.sum() >= counts.sum() and (np.diff(frame_times) > 0).all())
    is_matched &= format_name not in _GUESSES_PTS
    restarts = is_matched and codec_name in _RESTARTING
    if not is_matched:
        frame_times = np.sort(dts[counts])
    frame_count = len(frame_times)
    has_times = is_matched or (dts[counts] != NO_TIME).all()
    return PacketTable(
        pts=pts,
        dts=dts,
        is_keyframe=is_keyframe,
        is_empty=is_empty,
        frame_times=frame_times if has_times else None,
        frame_count=frame_count,
        is_matched_by_time=is_matched,
        restarts=restarts,
        digest=blake2b(table.tobytes(), digest_size=16).digest(),
    )


def _time(ticks: int | None) -> int:
    return NO_TIME if ticks is None else ticks
