"""Chosen frames of a video file, decoding as few others as the file allows.

The frames are those of a full decode from the start, to the bit: decoding begins at a keyframe only where nothing
from before it is needed, and frames are recognised by their presentation time.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from .animated_webp import read_animation
from .container import decoded, demuxed, open_video
from .packet_table import NO_TIME, PacketTable
from .probing import VideoInfo
from .upright import Upright

_SEEKS_BY_INDEX = ("mov,mp4", "matroska")  # formats in which a seek lands where it should
# Codecs that mark frames which no other frame is predicted from. HEVC's mark is for one temporal layer only.
_MARKS_UNREFERENCED = {"h264", "mpeg1video", "mpeg2video", "mpeg4"}
_ATTEMPTS = 3  # keyframes tried before decoding from the start, where a frame does not come out as it should


def read_frames(
    info: VideoInfo,
    indices: list[int],
    *,
    hardware: bool = False,
    check_cancelled: Callable[[], None] = lambda: None,
) -> Iterator[Image.Image]:
    """Decode the frames at these positions (ascending).

    Args:
        info: from `probe`.
        indices: positions in order of presentation, from 0.
        hardware: decode with VideoToolbox where the machine and the file allow it, otherwise in software. Decoders
            that follow their standard give the same frames.
        check_cancelled: called between packets; it may raise to stop.

    Yields:
        RGB images, upright, with square pixels, on white where they are transparent. Fewer than asked for if the file
        breaks off early.
    """
    if info.packets is None:
        yield from read_animation(info.path, indices, check_cancelled)
    elif info.packets.is_matched_by_time:
        assert info.packets.frame_times is not None
        wanted = info.packets.frame_times[indices].tolist()
        reader = _Reader(info.path, info.packets, frozenset(wanted), hardware, check_cancelled)
        try:
            for pts in wanted:
                frame = reader.frame_at(pts)
                if frame is None:
                    return
                yield reader.upright(frame)
        finally:
            reader.release()
    else:
        yield from _counted(info.path, indices, hardware, check_cancelled)


def _counted(path: Path, indices: list[int], hardware: bool, check: Callable[[], None]) -> Iterator[Image.Image]:
    """By counting from the start, in files whose frames carry no usable times."""
    wanted = iter(indices)
    next_index = next(wanted, None)
    with open_video(path, hardware=hardware) as (container, stream):
        upright = Upright(stream)
        frames = (frame for packet in _demuxed(container, stream, check) for frame in decoded(packet))
        for position, frame in enumerate(frames):
            if position == next_index:
                yield upright(frame)
                next_index = next(wanted, None)
            if next_index is None:
                return


class _Reader:
    """Decodes from a keyframe to each wanted frame. Positions are those of the packet table."""

    def __init__(
        self, path: Path, table: PacketTable, wanted: frozenset[int], hardware: bool, check: Callable[[], None]
    ):
        self._path = path
        self._table = table
        self._wanted = wanted
        self._hardware = hardware
        self._check = check
        self._entry = 0  # where decoding began
        self._current: Any = None  # the last frame that is not after the last wanted time
        self._upcoming: Any = None  # decoded, and shown after that
        self._open()
        self.upright = Upright(self._stream)
        self._frames = self._decode_from(0)

    def close(self) -> None:
        """Close the file."""
        self._opened.__exit__(None, None, None)

    def release(self) -> None:
        """Close the file for good, so that the decoder's threads end now and not when Python collects garbage."""
        self.close()
        vars(self).clear()  # its generators refer to it

    def frame_at(self, pts: int) -> Any | None:
        """The frame shown at this presentation time; None if the file breaks off before. Times must ascend."""
        entries = self._table.entry_points(pts)
        nearest = next(entries)
        if nearest > self._position:  # nearer than going on
            self._start_at(nearest)
        frame = self._decode_to(pts)
        attempts = 1
        while self._entry > 0 and not self._is_right(frame, pts):
            # A stream that recovers only some frames after its entry point, or a damaged one.
            earlier = (entry for entry in entries if entry < self._entry)
            self._start_at(next(earlier, 0) if attempts < _ATTEMPTS else 0)
            frame = self._decode_to(pts)
            attempts += 1
        return frame

    def _is_right(self, frame: Any | None, pts: int) -> bool:
        if self._table.is_empty[self._table.position(pts)]:  # an empty packet repeats the frame before
            return frame is not None
        return frame is not None and frame.pts == pts and not frame.is_corrupt

    def _decode_to(self, pts: int) -> Any | None:
        """The last frame that is not after this time, or the first of all; None at the end of the file."""
        while self._current is None or self._current.pts < pts:
            frame = self._upcoming or next(self._frames, None)
            self._upcoming = None
            if frame is None:
                return self._current if self._table.is_empty[self._table.position(pts)] else None
            if frame.pts is None:  # the second field of a picture
                continue
            if frame.pts > pts:
                self._upcoming = frame
                return self._current or frame
            self._current = frame
        return self._current

    def _open(self) -> None:
        self._opened = open_video(self._path, hardware=self._hardware)
        self._container, self._stream = self._opened.__enter__()
        self._packets = _demuxed(self._container, self._stream, self._check)
        self._position = 0  # of the next packet
        segments = self._table.segments
        self._seeks = self._container.format.name.startswith(_SEEKS_BY_INDEX) and not segments.is_joined
        is_repeated = self._table.is_empty.any()  # then a frame that is not wanted itself may be shown once more
        self._may_leave_out = self._stream.codec.canonical_name in _MARKS_UNREFERENCED and not is_repeated

    def _start_at(self, entry: int) -> None:
        """Let the next frames be those that follow an entry point."""
        self._entry = entry
        self._current = self._upcoming = None
        self._stream.codec_context.flush_buffers()
        self._frames = self._decode_from(entry)

    def _decode_from(self, entry: int) -> Iterator[Any]:
        for packet in self._packets_from(entry):
            shift = self._table.segments.shift_at(self._position)
            if self._position == len(self._table.pts) and packet.size:
                continue  # cut off: with several threads, the decoder would lose the frames before it, too
            self._position += 1
            if packet.pts is not None:  # as in the table, so that times ascend in joined recordings
                packet.pts -= shift
            if packet.dts is not None:
                packet.dts -= shift
            if packet.size or packet.pts is None:  # an empty packet would end the stream
                if self._may_leave_out:
                    self._stream.codec_context.skip_frame = "DEFAULT" if packet.pts in self._wanted else "NONREF"
                yield from decoded(packet)

    def _packets_from(self, entry: int) -> Iterator[Any]:
        if entry and self._seeks:
            shift = self._table.segments.shift_at(entry)
            dts = int(self._table.dts[entry])
            pts = int(self._table.pts[entry]) + shift
            self._container.seek(dts + shift if dts != NO_TIME else pts, stream=self._stream)
            self._packets = _demuxed(self._container, self._stream, self._check)
            for packet in self._packets:
                if packet.pts == pts:
                    self._position = entry
                    yield packet
                    yield from self._packets
                    return
            entry_passed = True  # the index does not hold what it says
        else:
            entry_passed = entry < self._position
        if entry_passed:
            self.close()
            self._open()
        skipped = entry - self._position
        self._position = entry
        yield from islice(self._packets, skipped, None)


def _demuxed(container: Any, stream: Any, check: Callable[[], None]) -> Iterator[Any]:
    """Packets in file order, the last one empty; a damaged end is the end."""
    packets = demuxed(container, stream)
    while True:
        check()
        try:
            packet = next(packets)
        except MemoryError:
            raise
        except Exception:  # StopIteration, and whatever damage makes of it
            return
        yield packet
