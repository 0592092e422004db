"""Pictures, a clip and prompts to measure with; the same on every machine."""

from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from ..files import whole_file
from ..processor.processor import Processor

SENTENCE = "A picture shows more than words can say, and yet words are what we have to tell of it. "
CLIP_FPS = 30
CLIP_SIZE = (1280, 720)
_KEYFRAME_S = 2


def write_picture(path: Path, size: tuple[int, int], seed: int = 0) -> Path:
    """A JPEG photo of this (width, height): a gradient under noise, no two tiles alike."""
    width, height = size
    noise = np.random.default_rng(seed).integers(0, 48, (height, width, 3), dtype=np.uint8)
    across = np.linspace(0, 200, width).astype(np.uint8)[None, :, None]
    down = np.linspace(0, 200, height).astype(np.uint8)[:, None, None]
    with whole_file(path) as file:
        Image.fromarray(noise + across // 2 + down // 2).save(file, format="JPEG", quality=90)
    return path


def write_noise_film(path: Path, length_s: float) -> Path:
    """An H.264 film, 1280 x 720, 30 frames a second, a keyframe every two seconds: noise in which a bar moves."""
    import av

    width, height = CLIP_SIZE
    background = np.random.default_rng(0).integers(0, 40, (height, width, 3), dtype=np.uint8)
    with whole_file(path) as file, av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(CLIP_FPS), options={"preset": "superfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.gop_size = CLIP_FPS * _KEYFRAME_S
        for index in range(max(1, round(length_s * CLIP_FPS))):
            picture = np.roll(background, index, axis=1)
            left = index * 7 % (width - 80)
            picture[:, left : left + 80] += np.uint8(index % 200)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def prompt_of(processor: Processor, num_tokens: int) -> str:
    """A question that makes a prompt of exactly, or hardly more than, this many tokens.

    Raises:
        ValueError: the model's context is not that long.
    """

    def is_short(text: str) -> bool:
        try:
            return len(processor(text).input_ids) < num_tokens
        except ValueError:  # beyond the context
            return False

    text = "?" + SENTENCE
    while is_short(text):
        text += text
    low, high = 1, len(text)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if is_short(text[:middle]) else (low, middle)
    processor(text[:low])  # says so if there is no such prompt
    return text[:low]
