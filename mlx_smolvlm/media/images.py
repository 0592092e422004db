"""An image from wherever it is (path, web address, bytes, PIL image, array) -> PIL image in RGB.

Pixels equal those of the reference (transformers), so the model sees what it saw in training. That reads
files as RGB first (image_utils.py, `load_image`), which drops an alpha channel: what lies under it shows.
Transparency that is left, a key colour in a file or the alpha of a PIL image or array, turns white
(image_transforms.py, `convert_to_rgb`). The one deviation: 16-bit grey, which the reference clips to white.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from PIL import Image

from ..options import DEFAULT_POLICY, FetchPolicy
from .image_files import MAX_IMAGE_PIXELS, decoded, from_file, reason, too_large
from .image_limits import check_sides
from .urls import URL_SCHEME, FetchError, check_size, decode_data_url, is_url, path_of_file_url, printable, redact_url

CHANNELS = (1, 3, 4)


class ArraySource(Protocol):
    """What NumPy can make an array of: arrays of MLX, JAX, PyTorch on the CPU, and the like."""

    def __array__(self) -> Any:
        """The pixels."""


ImageSource = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray | ArraySource
)


def load_image(
    source: ImageSource,
    policy: FetchPolicy = DEFAULT_POLICY,
    *,
    max_pixels: int = MAX_IMAGE_PIXELS,
    check_cancelled: Callable[[], None] = lambda: None,
    page: int | None = None,
) -> Image.Image:
    """Return the image upright, in mode RGB, decoded, independent of `source`, without metadata.

    source: one of
        - str: a path (`~` is expanded), or a file://, http(s):// or data: URL; `policy` limits the last
          two. A server passes only bytes and URLs from strangers, since any readable path is opened;
        - pathlib.Path, or any object with `__fspath__`;
        - bytes, bytearray, memoryview: the content of an image file;
        - file opened in binary mode, `io.BytesIO` too: read from its beginning. One that cannot be rewound (a pipe, an
          HTTP response) is read to its end, at most `policy.max_bytes`;
        - PIL image, which stays as it is;
        - numpy array (height, width), or (height, width, channels) with 1, 3 or 4 channels, RGB order:
          uint8; uint16, of which the high byte counts; bool; floats from 0 to 1;
        - any object with `__array__`, such as an `mx.array`: as a numpy array.
    max_pixels: width * height above which an image is refused, from its header alone.
    check_cancelled: called while a download is waited for and between blocks of a file; it may raise to stop.
    page: which page of a TIFF file, counted from 1. None takes the first, and warns if there are more.

    Of several frames the first counts (of a PIL image the current one). Of a raw photo that is a TIFF file (DNG, NEF,
    CR2) the full-size preview is read, with a warning; without one it is refused. For transparency see
    above. 16-bit grey keeps its high byte, which is also how Pillow reads 16-bit colour;
    there is no stretching, so 12 bits stored in 16 stay dark. Colour profiles are not applied.

    Raises: FileNotFoundError, IsADirectoryError, PermissionError for paths; FetchError for web
    addresses; ValueError for what is not an image, is damaged, too large or of another shape or dtype;
    TypeError for other sources. Each says in one line what was wrong with which source.
    """
    name = describe_source(source)
    is_array = _is_array(source)
    if page not in (None, 1) and (is_array or isinstance(source, Image.Image)):
        raise ValueError(f"{name}: page is {page}, but these are the pixels of one page; leave it out")
    if isinstance(source, Image.Image):
        return decoded(source, name, max_pixels, check_cancelled)
    if is_array:
        return _from_array(_as_array(source, name), name, max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return from_file(io.BytesIO(source), name, max_pixels, page, check_cancelled)
    if not isinstance(source, (str, os.PathLike)):
        file = _rewound(source, name, policy.max_bytes, check_cancelled)
        return from_file(file, name, max_pixels, page, check_cancelled)
    text = os.fsdecode(source)
    scheme = URL_SCHEME.match(text) if isinstance(source, str) else None
    kind = scheme[0].lower() if scheme else "path"
    if kind == "data":
        data = decode_data_url(text, policy.max_bytes, check_cancelled)
        return from_file(io.BytesIO(data), name, max_pixels, page, check_cancelled)
    if kind not in ("path", "file"):  # `fetch` says which kinds of address there are
        from .fetch import fetch  # files need no network

        data = fetch(text, policy, check_cancelled)
        return from_file(io.BytesIO(data), name, max_pixels, page, check_cancelled)
    with _opened(path_of_file_url(text, name) if kind == "file" else text, name) as file:
        return from_file(file, name, max_pixels, page, check_cancelled)


def describe_source(source: object) -> str:
    """Return one short line that names `source` in messages, without passwords and bulk data."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"image bytes ({memoryview(source).nbytes} bytes)"
    if isinstance(source, Image.Image):
        return f"PIL image ({source.mode}, {source.width}x{source.height})"
    if isinstance(source, np.ndarray):
        return f"numpy array ({source.dtype}, shape {source.shape})"
    if _is_array(source):
        shape = f", shape {tuple(source.shape)}" if hasattr(source, "shape") else ""
        return f"{type(source).__module__}.{type(source).__name__} ({getattr(source, 'dtype', 'array')}{shape})"
    if not isinstance(source, (str, os.PathLike)):
        name = getattr(source, "name", None)
        named = f" {printable(name, 200)}" if isinstance(name, str) and hasattr(source, "read") else ""
        return f"{type(source).__name__} object{named}"
    if isinstance(source, str) and is_url(source):
        return redact_url(source)
    return printable(os.fsdecode(source), 200) or "empty path"


def _is_array(source: object) -> bool:
    return hasattr(source, "__array__") and not isinstance(source, (type, str, os.PathLike, Image.Image))


def _as_array(source: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(source)
    except Exception as error:  # what a library raises for its own types, such as bfloat16 or arrays on a GPU
        raise ValueError(f"{name}: no numpy array can be made of it ({reason(error)}); convert it first") from error


def _rewound(source: Any, name: str, max_bytes: int, check_cancelled: Callable[[], None]) -> BinaryIO:
    """A file object at its beginning, as one that can be searched."""
    read = getattr(source, "read", None)
    if not callable(read) or isinstance(source, type):
        raise TypeError(
            f"{name}: not an image; pass a path, URL, bytes, a file opened in binary mode, a PIL image or an array"
        )
    if isinstance(source, io.TextIOBase):
        raise TypeError(f"{name}: a file opened in text mode; open it with mode 'rb'")
    try:
        if source.seekable():
            source.seek(0)
            return source  # type: ignore[no-any-return]
    except (AttributeError, OSError, ValueError):  # no such method, or closed: reading it says so
        pass
    content = io.BytesIO()
    try:
        while chunk := read(2**20):
            check_cancelled()
            content.write(chunk)
            check_size(content.tell(), max_bytes, name)
    except FetchError:  # too large
        raise
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: cannot be read ({reason(error)}); pass a file opened in binary mode") from error
    content.seek(0)
    return content


def _opened(path: str, name: str) -> BinaryIO:
    try:
        expanded = Path(path).expanduser()
        if expanded.is_file() or expanded.is_dir() or not expanded.exists():
            return expanded.open("rb")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{name}: no such file; check the path of the image") from error
    except IsADirectoryError as error:
        raise IsADirectoryError(f"{name}: a folder; pass the path of one image in it") from error
    except PermissionError as error:
        raise PermissionError(f"{name}: may not be read; check the permissions of the file") from error
    except (OSError, RuntimeError, ValueError) as error:  # name too long, no home folder for ~, zero byte
        raise ValueError(f"{name}: not a usable path ({reason(error)}); check it") from error
    raise ValueError(f"{name}: not a regular file; pass the bytes of the image")  # a pipe could block for ever


def _from_array(array: np.ndarray, name: str, max_pixels: int) -> Image.Image:
    shape = array.shape
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in CHANNELS):
        hint = "pass one image"
        if array.ndim == 3 and shape[0] in CHANNELS:
            hint = "this one is channels first, pass image.transpose(1, 2, 0)"
        raise ValueError(f"{name}: expected (height, width) or (height, width, 1, 3 or 4); {hint}")
    if array.size == 0 or shape[0] * shape[1] > max_pixels:
        reason = "has no pixels; pass at least 1x1" if array.size == 0 else too_large(max_pixels)
        raise ValueError(f"{name}: {reason}")
    check_sides(shape[1], shape[0], name)
    array = array[:, :, 0] if array.ndim == 3 and shape[2] == 1 else array
    if array.dtype.kind == "b":
        array = array * np.uint8(255)
    elif array.dtype.kind == "u" and array.dtype.itemsize == 2:
        array = array >> 8
    elif array.dtype.kind == "f":
        low, high = array.min(), array.max()
        if not (low >= 0 and high <= 1):  # so written that NaN does not pass
            raise ValueError(f"{name}: values from {low} to {high}; floats go from 0 to 1, so scale them or use uint8")
        array = np.rint(array.astype(np.float64) * 255)  # rounding returns n for n / 255 in any precision
    elif array.dtype != np.uint8:
        raise ValueError(f"{name}: dtype {array.dtype}; expected uint8, uint16, bool or floats from 0 to 1")
    if array.ndim == 3 and shape[2] == 4:
        alpha = array[..., 3:] / 255
        array = np.round(alpha * array[..., :3] + (1 - alpha) * 255)
    return Image.fromarray(np.ascontiguousarray(array, dtype=np.uint8)).convert("RGB")
