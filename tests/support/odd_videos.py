"""Makers of videos that are not as one would like: joined, with a jumping clock, mirrored, with covers, cut off."""

import struct
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from PIL import Image

from .frames import converted
from .video_encoding import FPS, X264, pixels, sound
from .video_files import TS_PACKET_BYTES

HALF = 12  # frames of each of two recordings

# Recordings one after the other, and clocks


def joined(path: Path, *parts: Callable[[Path], object], change: Callable[[bytes], bytes] = bytes) -> None:
    """The files of some writers one after the other; `change` edits those after the first."""
    contents = []
    for write in parts:
        write(path)
        contents.append(path.read_bytes())
    path.write_bytes(contents[0] + b"".join(map(change, contents[1:])))


def part(write: Callable[..., None], first: int, count: int = HALF, start: int = 0, **options: object) -> Callable:
    """A recording of some frames whose clock begins at `start` frames."""
    return partial(write, times=range(start, start + count), first_index=first, **options)


def two(write: Callable[..., None], **options: object) -> Callable:
    """Two recordings of the same kind, the clock of each from 0 on."""
    return lambda path: joined(path, part(write, 0, **options), part(write, HALF, **options))


def later_half(ts: bytes) -> bytes:
    """A transport stream without its first frames, as a recorder cuts it: its tables, then from the middle on."""
    middle = len(ts) // 2 // TS_PACKET_BYTES * TS_PACKET_BYTES
    return ts[middle:]


def jumping(packets: list[av.Packet], frames: int, from_index: int = HALF) -> Iterable[av.Packet]:
    """The clock jumps by this many frames."""
    for index, packet in enumerate(packets):
        if index >= from_index:
            packet.pts += frames
            packet.dts += frames
        yield packet


# Sound and last frames that stand


def with_sound(path: Path, seconds: float, count: int = 2 * HALF, codec: str = "aac", **options: object) -> None:
    """A video with sound that lasts for `seconds`."""
    with av.open(str(path), "w") as container:
        audio = container.add_stream(codec, rate=48000)
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, FPS)
        packets = []
        for index, time in enumerate(options.get("times", range(count))):
            frame = converted(av.VideoFrame.from_ndarray(pixels(index), format="rgb24"), "yuv420p")
            frame.pts, frame.time_base = time, Fraction(1, FPS)
            packets += stream.encode(frame)
        packets += stream.encode(None) + sound(audio, seconds)
        container.mux(sorted(packets, key=lambda packet: packet.dts * packet.time_base))


def animation(path: Path, format: str, durations_ms: Sequence[int], **options: object) -> None:
    """Pictures as GIF, WebP, APNG or AVIF."""
    first, *rest = [Image.fromarray(pixels(index)) for index in range(len(durations_ms))]
    rest_options = {"append_images": rest, "duration": list(durations_ms), **options}
    first.save(path, format=format, save_all=True, **rest_options)


# Geometry


def with_matrix(path: Path, write: Callable[[Path], object], matrix: Sequence[int]) -> None:
    """A file of MP4's kind with a display matrix (a, b, c, d) in its track's header."""
    write(path)
    content = bytearray(path.read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    struct.pack_into(">9i", content, content.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


ORIENTATIONS: dict[str, tuple[tuple[int, int, int, int], Callable[[np.ndarray], np.ndarray]]] = {
    "upright": ((1, 0, 0, 1), lambda picture: picture),
    "mirrored": ((-1, 0, 0, 1), lambda picture: picture[:, ::-1]),
    "upside_down": ((-1, 0, 0, -1), lambda picture: picture[::-1, ::-1]),
    "flipped": ((1, 0, 0, -1), lambda picture: picture[::-1]),
    "transposed": ((0, 1, 1, 0), lambda picture: picture.transpose(1, 0, 2)),
    "clockwise": ((0, 1, -1, 0), lambda picture: picture.transpose(1, 0, 2)[:, ::-1]),
    "counter_clockwise": ((0, -1, 1, 0), lambda picture: picture.transpose(1, 0, 2)[::-1]),
    "transverse": ((0, -1, -1, 0), lambda picture: picture.transpose(1, 0, 2)[::-1, ::-1]),
}


def with_stream_matrix(path: Path, **how: object) -> None:
    """A file whose muxer is given an orientation, in the way that its container has for it."""
    X264(path.with_suffix(".mp4"), times=range(2 * HALF))
    with av.open(str(path.with_suffix(".mp4"))) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(**how)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)


def anamorphic(write: Callable[..., None], aspect: str) -> Callable:
    """A video whose pixels are not square; `aspect` is that of the whole picture."""
    return partial(write, times=range(2 * HALF), options={"aspect": aspect})


# Streams


def two_streams(path: Path, default: int | None, sizes: Sequence[tuple[int, int]]) -> None:
    """Two video streams; the pictures of the second one begin at 100."""
    with av.open(str(path), "w") as container:
        streams = []
        for number, size in enumerate(sizes):
            stream = container.add_stream("libx264", rate=FPS)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.codec_context.time_base = Fraction(1, FPS)
            stream.disposition = av.stream.Disposition.default if number == default else av.stream.Disposition(0)
            streams.append(stream)
        for index in range(2 * HALF):
            for number, (stream, size) in enumerate(zip(streams, sizes, strict=True)):
                pictured = pixels(100 * number + index, size)
                frame = converted(av.VideoFrame.from_ndarray(pictured, format="rgb24"), "yuv420p")
                frame.pts, frame.time_base = index, Fraction(1, FPS)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))


def with_cover(path: Path, is_marked: bool) -> None:
    """A film after a large picture, which is marked as a cover or not."""
    with av.open(str(path), "w") as container:
        cover, film = container.add_stream("mjpeg", rate=1), container.add_stream("libx264", rate=FPS)
        cover.width, cover.height, cover.pix_fmt = 240, 160, "yuvj420p"
        if is_marked:
            cover.disposition = av.stream.Disposition.attached_pic
        film.width, film.height, film.pix_fmt = 96, 64, "yuv420p"
        film.codec_context.time_base = Fraction(1, FPS)
        picture = converted(av.VideoFrame.from_ndarray(pixels(200, (240, 160)), format="rgb24"), "yuvj420p")
        picture.pts = 0
        container.mux(cover.encode(picture) + cover.encode(None))
        for index in range(2 * HALF):
            frame = converted(av.VideoFrame.from_ndarray(pixels(index), format="rgb24"), "yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(film.encode(frame))
        container.mux(film.encode(None))


# Incomplete files


def cut_off(path: Path, write: Callable[[Path], object], share: float) -> None:
    """The first part of a file."""
    write(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
