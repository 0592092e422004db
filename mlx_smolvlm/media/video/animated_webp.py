"""Animated WebP and AVIF, by Pillow: FFmpeg does not decode the first, and of the second neither tiles nor alpha."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from .container import PASS_AS_IMAGE

DEFAULT_DURATION_MS = 100  # of a frame that states none, as browsers take it
_ANIMATION_FLAG = 2  # in the flags of the VP8X chunk


def is_pillow_animation(path: Path) -> bool:
    """Whether a file is an animated WebP or AVIF, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(21)
    if head[4:12] == b"ftypavis":
        return True
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[20:] and head[20] & _ANIMATION_FLAG)


def animation_times_ms(path: Path, check_cancelled: Callable[[], None] = lambda: None) -> np.ndarray:
    """When each frame is shown, and when the last one ends: (frame_count + 1,) int64 milliseconds.

    Raises:
        ValueError: a damaged file, or a single image.
    """
    durations_ms = []
    with _opened(path) as image:
        for frame in ImageSequence.Iterator(image):
            check_cancelled()
            try:
                frame.load()  # only then is its duration known
            except (OSError, ValueError, EOFError):  # the file breaks off
                break
            durations_ms.append(frame.info.get("duration") or DEFAULT_DURATION_MS)
        if len(durations_ms) == 1 and getattr(image, "n_frames", 1) == 1:
            raise ValueError(f"{path} is an image, not a video; {PASS_AS_IMAGE}")
        if not durations_ms:
            raise ValueError(f"{path} is a damaged {image.format} file")
    return np.cumsum([0, *durations_ms]).astype(np.int64)


def read_animation(
    path: Path, indices: list[int], check_cancelled: Callable[[], None] = lambda: None
) -> Iterator[Image.Image]:
    """The frames at these positions (ascending), RGB, on white; fewer if the file breaks off."""
    with _opened(path) as image:
        for index in indices:
            check_cancelled()
            try:
                image.seek(index)
                frame = image.convert("RGBA")
            except (EOFError, OSError, ValueError):
                return
            yield Image.alpha_composite(Image.new("RGBA", frame.size, "white"), frame).convert("RGB")


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except OSError:
        raise ValueError(f"{path} is a damaged animation, or this Pillow cannot read its kind") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} is larger than Pillow reads: {error}") from None
