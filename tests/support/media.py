"""Deterministic pictures for the tests, and the paths of the committed videos.

Everything is integer arithmetic on numpy's frozen `RandomState` stream, so that the 8-bit pixels are the same on every
machine and only their hashes need to be committed.
"""

from pathlib import Path

import numpy as np
from PIL import Image

PICTURE_SIZES = {  # name -> (width, height)
    "landscape": (640, 480),
    "portrait": (300, 500),
    "square": (256, 256),
    "tiny": (17, 9),
    "panorama": (900, 120),
    "second": (320, 240),
}
VIDEOS = ("clip", "short", "long")  # made by make_videos.py
NUM_BLOBS = 7
NOISE = 25  # noise values are 0..24: enough to tell tiles and resampling filters apart


def picture(name: str) -> Image.Image:
    """The RGB picture of that name; see PICTURE_SIZES."""
    return sized_picture(*PICTURE_SIZES[name])


def sized_picture(width: int, height: int) -> Image.Image:
    """An RGB picture (height, width, 3) of a gradient, a few round blobs and noise; a size has one picture."""
    random = np.random.RandomState(width * 8191 + height)
    column = np.arange(width, dtype=np.int32)[None, :]
    row = np.arange(height, dtype=np.int32)[:, None]
    across = np.broadcast_to(150 * column // max(width - 1, 1), (height, width))
    down = np.broadcast_to(150 * row // max(height - 1, 1), (height, width))
    pixels = np.stack([across, down, 150 - (across + down) // 2], axis=-1)

    largest_radius = max(2, max(width, height) // 4)
    for _ in range(NUM_BLOBS):
        x, y = random.randint(0, width), random.randint(0, height)
        radius = random.randint(largest_radius // 2, largest_radius + 1)
        color = random.randint(-160, 161, size=3)
        # 1 at the centre, 0 from the rim on, in steps of 1/256
        weight = 256 * np.maximum(radius**2 - (column - x) ** 2 - (row - y) ** 2, 0) // radius**2
        for channel in range(3):
            pixels[..., channel] += weight * int(color[channel]) // 256

    noise = random.randint(0, NOISE, size=(height, width, 3), dtype=np.uint8)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def video_path(name: str) -> Path:
    """The H.264 file of that name, one of VIDEOS."""
    if name not in VIDEOS:
        raise ValueError(f"no video is called {name!r}; there are {', '.join(VIDEOS)}")
    return Path(__file__).parent.parent / "goldens" / "media" / f"{name}.mp4"
