"""Small videos made on the spot with PyAV's encoders. Every frame of a file differs from all others."""

import os
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np

from .frames import converted

SIZE = (96, 64)
FPS = 24
NUM_FRAMES = 48
MILLISECOND = Fraction(1, 1000)
EVEN_MS = [round(1000 * index / FPS) for index in range(NUM_FRAMES)]
UNEVEN_MS = [*range(0, 2000, 200), *range(2000, 3000, 40), *range(3000, 6250, 250)]  # 5, 25 and 4 frames/s

_PATTERN = np.random.RandomState(0).randint(0, 256, (256, 256, 3), np.uint8)


def pixels(index: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Frame `index`: (height, width, 3) uint8 of a moving gradient under noise."""
    width, height = size
    column, row = np.arange(width)[None], np.arange(height)[:, None]
    ramp = np.stack([2 * column + 5 * index + 0 * row, 3 * row - 4 * index + 0 * column, column + row], axis=-1) % 256
    noise = np.roll(_PATTERN, 37 * index, axis=(0, 1))[:height, :width]
    return ((3 * ramp + noise) // 4).astype(np.uint8)


def encode(
    path: Path,
    codec: str,
    *,
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = SIZE,
    times: Sequence[int] = range(NUM_FRAMES),
    time_base: Fraction = Fraction(1, FPS),
    gop: int = 12,
    b_frames: int = 0,
    options: dict[str, str] | None = None,
    muxing: dict[str, str] | None = None,
    format: str | None = None,
    audio_codec: str | None = None,
    edit: Callable[[list[av.Packet]], Iterable[av.Packet]] = iter,
    first_index: int = 0,
) -> None:
    """Write a video of `len(times)` frames.

    Args:
        path: where to; its suffix chooses the container, unless `format` does.
        codec: encoder.
        pix_fmt, size, gop, b_frames, options: of the encoder; size is (width, height).
        times: when each frame is shown, in units of `time_base`.
        muxing: options of the container.
        audio_codec: adds a sound track, as the first stream of the file.
        edit: changes the encoded packets before they are written.
        first_index: which picture is the first.
    """
    with av.open(str(path), "w", format=format, options=muxing or {}) as container:
        audio = container.add_stream(audio_codec, rate=48000) if audio_codec else None
        stream = container.add_stream(codec, rate=FPS, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = stream.time_base = time_base
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = gop, b_frames
        packets = []
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(pixels(first_index + index, size), format="rgb24")
            frame = converted(frame, pix_fmt)
            frame.pts, frame.time_base = time, time_base
            packets += stream.encode(frame)
        packets += stream.encode(None)
        if audio is not None:
            container.mux(sound(audio, float(times[-1] * time_base)))
        container.mux(list(edit(packets)))
    if codec == "libsvtav1" and hasattr(os, "sched_setscheduler"):
        # As root, this encoder makes its process a real-time one, which would starve those that it starts.
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def sound(stream: av.AudioStream, duration_s: float) -> list[av.Packet]:
    """Packets of silence."""
    packets = []
    for index in range(int(duration_s * 48000 / 1024) + 1):
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, 1024 * index, Fraction(1, 48000)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


X264_PARAMS = "crf=20:scenecut=0:b-adapt=0"  # keyframes at their places, and B-frames in spite of noise
X264 = partial(encode, codec="libx264", b_frames=3, options={"x264-params": X264_PARAMS})
X265 = partial(encode, codec="libx265", b_frames=3)
X265_PARAMS = "keyint=12:scenecut=0:b-adapt=0:bframes=3:log-level=none:pools=1:frame-threads=1"
VP9 = partial(encode, codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "0"})
AV1 = partial(encode, codec="libsvtav1", options={"preset": "12", "svtav1-params": "lp=1"})
MPEG4 = partial(encode, codec="mpeg4", b_frames=2)
MPEG2 = partial(encode, codec="mpeg2video", b_frames=2)
NO_SCENE_CUTS = {"sc_threshold": "1000000000"}
OPEN_MPEG2 = partial(MPEG2, options=NO_SCENE_CUTS)
INTERLACED_MPEG2 = partial(MPEG2, options={"flags": "+ildct+ilme", **NO_SCENE_CUTS})


def x264(params: str, **rest: object) -> Callable[[Path], None]:
    """H.264 by x264's own parameters."""
    return partial(X264, options={"x264-params": f"{X264_PARAMS}:{params}"}, **rest)


def x265(params: str, **rest: object) -> Callable[[Path], None]:
    """HEVC by x265's own parameters."""
    return partial(X265, options={"preset": "ultrafast", "x265-params": f"{X265_PARAMS}:{params}"}, **rest)
