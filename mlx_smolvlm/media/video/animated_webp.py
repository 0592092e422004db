"""Animated WebP, which FFmpeg does not decode, by Pillow."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

DEFAULT_DURATION_MS = 100  # of a frame that states none, as browsers take it
_ANIMATION_FLAG = 2  # in the flags of the VP8X chunk


def is_animated_webp(path: Path) -> bool:
    """Whether a file is one, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(21)
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[20:] and head[20] & _ANIMATION_FLAG)


def webp_times(path: Path, check_cancelled: Callable[[], None] = lambda: None) -> np.ndarray:
    """When each frame is shown, (frame_count,) float64 seconds; raises ValueError for a damaged file."""
    durations_ms = []
    with _opened(path) as image:
        for frame in ImageSequence.Iterator(image):
            check_cancelled()
            try:
                frame.load()  # only then is its duration known
            except (OSError, ValueError, EOFError):  # the file breaks off
                break
            durations_ms.append(frame.info.get("duration") or DEFAULT_DURATION_MS)
    if not durations_ms:
        raise ValueError(f"{path} is a damaged WebP file")
    return np.cumsum([0, *durations_ms[:-1]]) / 1000


def read_webp_frames(
    path: Path, indices: list[int], check_cancelled: Callable[[], None] = lambda: None
) -> Iterator[Image.Image]:
    """The frames at these positions (ascending), RGB; fewer if the file breaks off."""
    with _opened(path) as image:
        for index in indices:
            check_cancelled()
            try:
                image.seek(index)
                frame = image.convert("RGB")
            except (EOFError, OSError, ValueError):
                return
            yield frame


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except OSError:
        raise ValueError(f"{path} is a damaged WebP file") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} is larger than Pillow reads: {error}") from None
