"""A picture from wherever it is (path, web address, bytes, PIL image, array) -> PIL image in RGB.

Pixels equal those of the reference (transformers), so the model sees what it saw in training. That reads
files as RGB first (image_utils.py, `load_image`), which drops an alpha channel: what lies under it shows.
Transparency that is left, a key colour in a file or the alpha of a PIL image or array, turns white
(image_transforms.py, `convert_to_rgb`). The one deviation: 16-bit grey, which the reference clips to white.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import numpy as np
from PIL import ExifTags, Image

from ..options import FetchPolicy
from .fetch import DEFAULT_POLICY, fetch
from .image_limits import check_image_bytes, check_scans, check_sides
from .urls import URL_SCHEME, decode_data_url, is_url, printable, redact_url

MAX_IMAGE_PIXELS = 178_956_970  # 2/3 GiB as Pillow stores RGB; where Pillow, too, refuses by default

# Pillow's name and plugin, usual ones first. No EPS, PSD, WMF and the like: they run other programs
# or guess. JPEG covers MPO; PPM covers PGM, PBM and PFM.
FORMATS = {
    "PNG": "PngImagePlugin",
    "JPEG": "JpegImagePlugin",
    "WEBP": "WebPImagePlugin",
    "GIF": "GifImagePlugin",
    "BMP": "BmpImagePlugin",
    "TIFF": "TiffImagePlugin",
    "PPM": "PpmImagePlugin",
    "AVIF": "AvifImagePlugin",
    "JPEG2000": "Jpeg2KImagePlugin",
}
EXPECTED = "PNG, JPEG, WebP, GIF, BMP, TIFF, PNM, AVIF or JPEG 2000"
UPRIGHT = {  # EXIF orientation -> what turns the stored picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
CHANNELS = (1, 3, 4)
VIDEO_SIGNATURES = (b"\x1aE\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"FLV\x01", b"OggS")  # Matroska, MPEG
BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)

ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | np.ndarray


def load_image(
    source: ImageSource, policy: FetchPolicy = DEFAULT_POLICY, *, max_pixels: int = MAX_IMAGE_PIXELS
) -> Image.Image:
    """Return the picture upright, in mode RGB, decoded, independent of `source`, without metadata.

    source: one of
        - str: a path (`~` is expanded), or a file://, http(s):// or data: URL; `policy` limits the last
          two. A server passes only bytes and URLs from strangers, since any readable path is opened;
        - pathlib.Path;
        - bytes, bytearray, memoryview: the content of a picture file;
        - PIL image, which stays as it is;
        - numpy array (height, width), or (height, width, channels) with 1, 3 or 4 channels, RGB order:
          uint8; uint16, of which the high byte counts; bool; floats from 0 to 1.
    max_pixels: width * height above which a picture is refused, from its header alone.

    Of several frames or pages the first counts (of a PIL image the current one). For transparency see
    above. 16-bit grey keeps its high byte, which is also how Pillow reads 16-bit colour;
    there is no stretching, so 12 bits stored in 16 stay dark. Colour profiles are not applied.

    Raises: FileNotFoundError, IsADirectoryError, PermissionError for paths; FetchError for web
    addresses; ValueError for what is not a picture, is damaged, too large or of another shape or dtype;
    TypeError for other sources. Each says in one line what was wrong with which source.
    """
    name = describe_source(source)
    if isinstance(source, Image.Image):
        return _decoded(source, name, max_pixels, is_file=False)
    if isinstance(source, np.ndarray):
        return _from_array(source, name, max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_file(io.BytesIO(source), name, max_pixels)
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"{name}: not a picture; pass a path, URL, bytes, PIL image or numpy array")
    text = os.fspath(source)
    scheme = URL_SCHEME.match(text) if isinstance(source, str) else None
    kind = scheme[0].lower() if scheme else "path"
    if kind == "data":
        return _from_file(io.BytesIO(decode_data_url(text, policy.max_bytes)), name, max_pixels)
    if kind not in ("path", "file"):  # `fetch` says which kinds of address there are
        return _from_file(io.BytesIO(fetch(text, policy)), name, max_pixels)
    with _opened(path_of_file_url(text, name) if kind == "file" else text, name) as file:
        return _from_file(file, name, max_pixels)


def describe_source(source: object) -> str:
    """Return one short line that names `source` in messages, without passwords and bulk data."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"image bytes ({memoryview(source).nbytes} bytes)"
    if isinstance(source, Image.Image):
        return f"PIL image ({source.mode}, {source.width}x{source.height})"
    if isinstance(source, np.ndarray):
        return f"numpy array ({source.dtype}, shape {source.shape})"
    if not isinstance(source, (str, os.PathLike)):
        return f"{type(source).__name__} object"
    if isinstance(source, str) and is_url(source):
        return redact_url(source)
    return printable(os.fspath(source), 200) or "empty path"


def path_of_file_url(url: str, name: str) -> str:
    """The path in a file:// URL; `name` is what errors call it."""
    from urllib.request import url2pathname  # imports an HTTP client, which files do not need

    parts = urlsplit(url)
    if parts.netloc.lower() not in ("", "localhost"):
        raise ValueError(f"{name}: a file on another computer; expected file:///path")
    return url2pathname(parts.path)


def _opened(path: str, name: str) -> BinaryIO:
    try:
        expanded = Path(path).expanduser()
        if expanded.is_file() or expanded.is_dir() or not expanded.exists():
            return expanded.open("rb")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{name}: no such file; check the path of the picture") from error
    except IsADirectoryError as error:
        raise IsADirectoryError(f"{name}: a folder; pass the path of one picture in it") from error
    except PermissionError as error:
        raise PermissionError(f"{name}: may not be read; check the permissions of the file") from error
    except (OSError, RuntimeError, ValueError) as error:  # name too long, no home folder for ~, zero byte
        raise ValueError(f"{name}: not a usable path ({_reason(error)}); check it") from error
    raise ValueError(f"{name}: not a regular file; pass the bytes of the picture")  # a pipe could block for ever


def _from_file(file: BinaryIO, name: str, max_pixels: int) -> Image.Image:
    """Open and decode. Image.open would do for the first, but above a limit that is global it warns, and
    nothing silences that for one thread alone; so its loop is repeated here, and `_decoded` checks."""
    check_image_bytes(file, name)
    head = file.read(1024)
    damage = ""
    for format_name, factory in _readers(head, name):
        file.seek(0)
        try:
            image = factory(file, "")
        except BOMBS as error:
            raise ValueError(f"{name}: {_too_large(max_pixels)}") from error
        except Exception as error:  # hostile bytes make plugins raise anything
            damage = f"damaged {format_name} header ({_reason(error)}); get a whole copy"
            continue
        with image:
            if format_name == "JPEG":
                check_scans(file, image.width * image.height, name, max_pixels)
            return _decoded(image, name, max_pixels, is_file=True)
    if damage and not _is_text(head):  # text can begin like a BMP ("BM") or PPM ("P1" to "P6")
        raise ValueError(f"{name}: {damage}")
    raise ValueError(f"{name}: {_other_content(head)}")


def _readers(head: bytes, name: str) -> Iterator[tuple[str, Callable[[BinaryIO, str], Image.Image]]]:
    """Yield (format, class of image files) for each format whose signature `head` bears."""
    if head[4:8] == b"ftyp" and re.search(rb"hei[cxms]|hev[cxms]", head[8:40]):
        try:
            pillow_heif: Any = import_module("pillow_heif")
        except ImportError as error:
            step = "convert it to JPEG or PNG, or pip install pillow-heif"
            raise ValueError(f"{name}: a HEIC picture, which Pillow does not read; {step}") from error
        yield "HEIC", pillow_heif.HeifImageFile
    for format_name, plugin in FORMATS.items():
        import_module(f"PIL.{plugin}")
        factory, accepts = Image.OPEN[format_name]
        accepted = accepts is None or accepts(head[:16])
        if isinstance(accepted, str):  # known, but this Pillow was built without it
            raise ValueError(f"{name}: {accepted}; install a complete Pillow, or convert the picture to PNG")
        if accepted:
            yield format_name, factory


def _decoded(image: Image.Image, name: str, max_pixels: int, is_file: bool) -> Image.Image:
    width, height = image.size
    if width * height == 0:
        raise ValueError(f"{name}: has no pixels ({width}x{height}); pass a picture at least 1x1 in size")
    if width * height > max_pixels:
        raise ValueError(f"{name}: {width}x{height} pixels, {_too_large(max_pixels)}")
    check_sides(width, height, name)
    try:
        image.load()
    except BOMBS as error:
        raise ValueError(f"{name}: {_too_large(max_pixels)}") from error
    except Exception as error:  # hostile bytes make decoders raise anything
        raise ValueError(f"{name}: damaged or cut short ({_reason(error)}); get a whole copy") from error
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken metadata around sound pixels: shown as stored
        orientation = None
    rgb = _to_rgb(image, name, is_file)
    rgb = rgb.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else rgb
    rgb.info = {}  # an orientation left in here would be applied a second time
    return rgb


def _to_rgb(image: Image.Image, name: str, is_file: bool) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        image = _narrowed(image, name)
    try:
        if is_file:
            if isinstance(image.info.get("transparency"), bytes):
                del image.info["transparency"]  # converting would drop it too, but with a warning
            image = image.convert("RGB")  # a key colour stays noted, an alpha channel is gone
        if "A" in image.getbands() or image.info.get("transparency") is not None:
            layer = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", layer.size, (255, 255, 255, 255)), layer)
        return image.convert("RGB")
    except Exception as error:
        raise ValueError(f"{name}: mode {image.mode} has no way to RGB ({_reason(error)}); save it as PNG") from error


def _narrowed(image: Image.Image, name: str) -> Image.Image:
    """Modes I and F do not say what white is. Up to 255 the reference's reading loses nothing and holds;
    above, I is 16-bit grey (so Pillow reads 16-bit PGM); what would be clipped is an error."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if image.mode == "I" and low >= 0 and 255 < high <= 65535:
        return Image.fromarray((values >> 8).astype(np.uint8))
    if not (low >= 0 and high <= 255):  # so written that NaN does not pass
        span = "0 to 255 or 0 to 65535" if image.mode == "I" else "0 to 255"
        raise ValueError(f"{name}: values from {low} to {high}; scale them to {span}")
    if image.mode == "F" and 0 < high <= 1:
        raise ValueError(f"{name}: values from {low} to {high}, but white is 255 in mode F; multiply by 255")
    return image


def _from_array(array: np.ndarray, name: str, max_pixels: int) -> Image.Image:
    shape = array.shape
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in CHANNELS):
        hint = "pass one picture"
        if array.ndim == 3 and shape[0] in CHANNELS:
            hint = "this one is channels first, pass image.transpose(1, 2, 0)"
        raise ValueError(f"{name}: expected (height, width) or (height, width, 1, 3 or 4); {hint}")
    if array.size == 0 or shape[0] * shape[1] > max_pixels:
        reason = "has no pixels; pass at least 1x1" if array.size == 0 else _too_large(max_pixels)
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
        array = np.rint(array.astype(np.float64) * 255)  # rounding gives back n for n / 255 in any precision
    elif array.dtype != np.uint8:
        raise ValueError(f"{name}: dtype {array.dtype}; expected uint8, uint16, bool or floats from 0 to 1")
    if array.ndim == 3 and shape[2] == 4:
        alpha = array[..., 3:] / 255
        array = np.round(alpha * array[..., :3] + (1 - alpha) * 255)
    return Image.fromarray(np.ascontiguousarray(array, dtype=np.uint8)).convert("RGB")


def _too_large(max_pixels: int) -> str:
    return f"more than the limit of {max_pixels} pixels; scale it down, or raise max_pixels if you trust it"


def _reason(error: Exception) -> str:
    return printable(getattr(error, "strerror", None) or str(error) or type(error).__name__, 100)


def _is_text(head: bytes) -> bool:
    return re.search(rb"[\x00-\x08\x0e-\x1f\xf8-\xff]", head) is None  # neither ASCII nor UTF-8 has these


def _other_content(head: bytes) -> str:
    """Say what bytes that are no picture seem to be, and what to do."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not head:
        return f"empty; expected {EXPECTED}"
    video_box = head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide") or head[8:12] == b"AVI "
    if video_box or head.startswith(VIDEO_SIGNATURES):
        return 'a video, not a picture; pass it with --video (in Python videos=, in a list of batch as "video")'
    if head.startswith((b"%PDF", b"%!PS", b"8BPS")):
        return "a PDF, PostScript or Photoshop document, not a picture; export it as PNG"
    if b"<svg" in text:
        return "an SVG drawing, not a picture; render it to PNG first"
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return "a web page, not a picture; use the address of the picture itself"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the picture itself; run git lfs pull"
    return f"{'text, not a picture' if _is_text(head) else 'not a picture of a known format'}; expected {EXPECTED}"
