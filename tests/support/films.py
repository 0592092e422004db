"""Videos with sound for the tests of the highlights example, and what can be seen and heard in them."""

from fractions import Fraction
from pathlib import Path
from random import Random

import av
import numpy as np

from .frames import converted, pixels_of

SAMPLE_RATE = 48000
TONE_HZ = 440


def write_film(
    path: Path,
    pictures,
    *,
    rate: int = 10,
    times_s: list[float] | None = None,
    video: str = "libx264",
    options: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    audio: str | None = "aac",
    loudness=lambda time_s: np.full(len(time_s), 0.3),
    start_s: float = 0.0,
) -> Path:
    """A file of these (height, width, 3) uint8 pictures, and a tone as loud as a function of seconds says.

    Frames are 1 / `rate` apart or shown at `times_s`; all times begin at `start_s`.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(video, rate=rate, options=options or {})
        sound = container.add_stream(audio, rate=SAMPLE_RATE, layout="mono") if audio else None
        count = 0
        for number, pixels in enumerate(pictures):
            if number == 0:
                stream.height, stream.width, stream.pix_fmt = *pixels.shape[:2], pix_fmt
                stream.codec_context.time_base = Fraction(1, 1000)
            frame = converted(av.VideoFrame.from_ndarray(pixels, format="rgb24"), pix_fmt)
            time_s = number / rate if times_s is None else times_s[number]
            frame.pts, frame.time_base = round((time_s + start_s) * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
            while sound and count < (time_s + 1 / rate) * SAMPLE_RATE:
                seconds = np.arange(count, count + 960) / SAMPLE_RATE
                wave = loudness(seconds) * np.sin(2 * np.pi * TONE_HZ * seconds)
                samples = av.AudioFrame.from_ndarray((wave * 32767).astype(np.int16)[None], "s16", "mono")
                samples.sample_rate, samples.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
                samples.pts = count + round(start_s * SAMPLE_RATE)
                container.mux(sound.encode(samples))
                count += 960
        container.mux(stream.encode(None))
        if sound:
            container.mux(sound.encode(None))
    return path


_RANDOM = Random("pattern")
_PATTERN = np.array([_RANDOM.random() < 0.5 for _ in range(400)])


def is_on(time_s):
    """A pattern in time by which pictures and sound are compared: it changes at irregular half seconds."""
    return _PATTERN[(2 * np.asarray(time_s) + 1e-6).astype(int)]


def blinking(times_s, size: tuple[int, int] = (64, 48)):
    """Pictures that are light while the pattern is on, dark otherwise; they get a little lighter from left to right."""
    width, height = size
    ramp = np.linspace(0, 40, width).astype(np.uint8)[None, :, None]
    for on in is_on(times_s):
        yield np.broadcast_to(ramp + np.uint8(200 if on else 10), (height, width, 3)).copy()


def seen(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Times of all frames in seconds, and the mean brightness of each."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.options = {"err_detect": "explode"}
        frames = [(float(frame.time), pixels_of(frame, "gray").mean()) for frame in container.decode(video=0)]
    times_s, brightness = np.array(frames).T
    return times_s, brightness


def heard(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Times in seconds, 5 ms apart, and how loud it is from each on (root mean square, 0 to 1)."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
        waves = np.zeros(0, np.float32)
        for decoded in container.decode(audio=0):
            for frame in resampler.resample(decoded):
                begin = round(float(frame.pts * frame.time_base) * SAMPLE_RATE)
                samples = frame.to_ndarray()[0]
                waves = np.pad(waves, (0, max(0, begin + len(samples) - len(waves))))
                waves[max(0, begin) : begin + len(samples)] = samples[max(0, -begin) :]
    step = SAMPLE_RATE // 200
    blocks = waves[: len(waves) // step * step].reshape(-1, step)
    return np.arange(len(blocks)) * step / SAMPLE_RATE, np.sqrt((blocks**2).mean(axis=1))


def changes(times_s: np.ndarray, values: np.ndarray, threshold: float) -> list[float]:
    """When values cross a threshold."""
    above = values > threshold
    return times_s[1:][above[1:] != above[:-1]].tolist()


def turned_by_90(mp4: bytes) -> bytes:
    """The file with a note that its pictures are to be turned a quarter clockwise: its video track's display matrix."""
    matrix = mp4.index(b"tkhd") + 44  # of version 0: after its name, 4 bytes of flags, 20 of times, 16 of layer
    turn = b"".join(v.to_bytes(4, "big", signed=True) for v in (0, 1 << 16, 0, -1 << 16, 0, 0, 32 << 16, 0, 1 << 30))
    return mp4[:matrix] + turn + mp4[matrix + 36 :]
