"""Small pictures of every kind, and what the reference makes of them."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from mlx_smolvlm.media.images import describe_source, load_image

ORIENTATION = 0x0112


def picture(mode: str = "RGB") -> Image.Image:
    """7 x 5, no two pixels alike, so that every flip and rotation shows."""
    height, width = 5, 7
    rows, columns = np.mgrid[:height, :width]
    channels = [rows * 50, columns * 36, rows * 7 + columns, 255 - rows * 40 - columns]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8)).convert("RGBA").convert(mode)


def pixels(image: Image.Image) -> np.ndarray:
    assert type(image) is Image.Image and image.mode == "RGB"
    return np.asarray(image)


def reference(image: Image.Image) -> np.ndarray:
    """What transformers' image_utils.load_image does, less the warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes) -> bytes:
    """A PNG of raw scanlines, for the kinds that Pillow does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def error_line(source: Any, kind: type[Exception] = ValueError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        load_image(source, **options)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 400
    assert message.startswith(describe_source(source))
    return message


def palettes_with_transparency() -> Iterator[Image.Image]:
    for transparency in (3, bytes([0, 128, 255, 7])):
        image = picture("RGB").quantize(16)
        image.info["transparency"] = transparency
        yield image
    yield picture("RGBA").convert("P")
    yield picture("RGBA").quantize(8)  # an RGBA palette
