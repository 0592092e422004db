"""The content of an image file -> PIL image in RGB, upright: formats, limits, pages and modes.

How sources are found, and whose pixels these are, is said in `images.py`.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import ExifTags, Image

from .image_limits import CheckedFile, SlowImageError, check_image_bytes, check_scans, check_sides
from .leaving import Left, run_leaving
from .signatures import is_text, is_tga, other_content
from .tiff import Selection, select
from .urls import printable

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
    "ICO": "IcoImagePlugin",
    "TGA": "TgaImagePlugin",  # has no signature, so it comes last
}
EXPECTED = "PNG, JPEG, WebP, GIF, BMP, TIFF, PNM, AVIF, JPEG 2000, ICO or TGA"
UPRIGHT = {  # EXIF orientation -> what turns the stored image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LONG_PIXELS = 4_000_000  # which take some 0.1 s
LONG_BYTES = 256 * 1024  # of JPEG 2000, which take as long
_READ_AT_OPENING = ("WEBP", "AVIF")
BAND_PIXELS = 4 * 1024**2  # of an image that is laid on white: Pillow holds Python's lock meanwhile
BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def from_file(
    file: BinaryIO, name: str, max_pixels: int, page: int | None = None, check: Callable[[], None] = lambda: None
) -> Image.Image:
    """Open and decode a page, counted from 1. `check` is called between blocks of the file; it may raise to stop.

    Image.open would do for the first, but above a limit that is global it warns, and nothing silences that for one
    thread alone; so its loop is repeated here, and `decoded` checks.
    """
    check_image_bytes(file, name)
    head = file.read(1024)
    damage = ""
    for format_name, factory in _readers(head, name):
        selection = _selected(file, name, page) if format_name == "TIFF" else Selection()
        if selection.jpeg is not None:
            raw = from_file(io.BytesIO(selection.jpeg), name, max_pixels, None, check)
            return raw.transpose(UPRIGHT[selection.orientation]) if selection.orientation in UPRIGHT else raw
        check_image_bytes(file, name, format_name)
        checked = CheckedFile(file, check)
        try:
            image = factory(cast(BinaryIO, checked), "")
            image.seek(selection.frame)
        except BOMBS as error:
            raise ValueError(f"{name}: {too_large(max_pixels)}") from error
        except Exception as error:  # hostile bytes make plugins raise anything
            check()  # the error may be that it is cancelled
            damage = f"damaged {format_name} header ({reason(error)}); get a whole copy"
            continue
        if page not in (None, 1) and format_name != "TIFF":
            raise ValueError(f"{name}: page is {page}, but only TIFF files have several; leave it out")
        with image:
            if format_name == "JPEG":
                check_scans(file, image.width * image.height, name, max_pixels, check)
            first = decoded(image, name, max_pixels, check, checked)
            checked.hand_over(check)
            if page is None and format_name != "TIFF" and _is_animated(image):
                advice = "pass it with --video (in Python videos=) for all"
                warnings.warn(f"{name}: an animation, of which the first frame is read; {advice}", stacklevel=2)
            return first
    if damage and not is_text(head):  # text can begin like a BMP ("BM") or PPM ("P1" to "P6")
        raise ValueError(f"{name}: {damage}")
    raise ValueError(f"{name}: {other_content(head, EXPECTED)}")


def _selected(file: BinaryIO, name: str, page: int | None) -> Selection:
    try:
        selection = select(file, page)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if selection.note is not None:
        warnings.warn(f"{name}: {selection.note}", stacklevel=2)
    return selection


def _is_animated(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # damage beyond the first frame, which has been read
        return False


def _readers(head: bytes, name: str) -> Iterator[tuple[str, Callable[[BinaryIO, str], Image.Image]]]:
    """Yield (format, class of image files) for each format whose signature `head` bears."""
    if head[4:8] == b"ftyp" and re.search(rb"hei[cxms]|hev[cxms]", head[8:40]):
        try:
            pillow_heif: Any = import_module("pillow_heif")
        except ImportError as error:
            step = "convert it to JPEG or PNG, or pip install pillow-heif"
            raise ValueError(f"{name}: a HEIC image, which Pillow does not read; {step}") from error
        yield "HEIC", pillow_heif.HeifImageFile
    for format_name, plugin in FORMATS.items():
        import_module(f"PIL.{plugin}")
        factory, accepts = Image.OPEN[format_name]
        accepted = is_tga(head) if accepts is None else accepts(head[:16])
        if isinstance(accepted, str):  # known, but this Pillow was built without it
            raise ValueError(f"{name}: {accepted}; install a complete Pillow, or convert the image to PNG")
        if accepted:
            yield format_name, factory


def decoded(
    image: Image.Image, name: str, max_pixels: int, check: Callable[[], None], file: CheckedFile | None = None
) -> Image.Image:
    """Load a PIL image: upright and RGB. `file` is what it is read from, if that was opened here: then an alpha channel
    is dropped, as the reference does."""
    width, height = image.size
    if width * height == 0:
        raise ValueError(f"{name}: has no pixels ({width}x{height}); pass an image at least 1x1 in size")
    if width * height > max_pixels:
        raise ValueError(f"{name}: {width}x{height} pixels, {too_large(max_pixels)}")
    check_sides(width, height, name)

    def work(check: Callable[[], None]) -> Image.Image:
        if file is not None:
            file.hand_over(check)
        return _decoded(image, name, max_pixels, check, file)

    if width * height < LONG_PIXELS:
        return _decoded(image, name, max_pixels, check, file)
    if file is None and image.format not in _READ_AT_OPENING:
        _load(image, name, max_pixels, check, file)  # a thread that is left would use the caller's file
    return run_leaving(work, width * height, check)


def _decoded(
    image: Image.Image, name: str, max_pixels: int, check: Callable[[], None], file: CheckedFile | None
) -> Image.Image:
    loaded = _load(image, name, max_pixels, check, file)
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken metadata around sound pixels: shown as stored
        orientation = None
    check()
    rgb = _to_rgb(loaded, name, file is not None, check)
    check()
    rgb = rgb.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else rgb
    rgb.info = {}  # an orientation left in here would be applied a second time
    return rgb


def _load(
    image: Image.Image, name: str, max_pixels: int, check: Callable[[], None], file: CheckedFile | None
) -> Image.Image:
    """The image with its pixels; another one, if another process has decoded it."""
    try:
        separate = None
        if image.format == "JPEG2000" and file is not None:
            separate = _decoded_separately(image, check, file)
        if separate is not None:
            return separate
        image.load()
        return image
    except BOMBS as error:
        raise ValueError(f"{name}: {too_large(max_pixels)}") from error
    except SlowImageError as error:
        raise ValueError(f"{name}: {error}") from None
    except Exception as error:  # hostile bytes make decoders raise anything
        check()
        raise ValueError(f"{name}: damaged or cut short ({reason(error)}); get a whole copy") from error


def _decoded_separately(image: Image.Image, check: Callable[[], None], file: CheckedFile) -> Image.Image | None:
    from .separate_decoding import can_start_python, decode_separately  # rare, and subprocess is slow to import

    if not can_start_python():
        return None
    file.seek(0)
    content = file.read()
    is_long = image.width * image.height >= LONG_PIXELS or len(content) >= LONG_BYTES
    return decode_separately(content, image.size, check) if is_long else None


def _to_rgb(image: Image.Image, name: str, is_file: bool, check: Callable[[], None]) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = _high_bytes(image, check)
    elif image.mode in ("I", "F"):
        image = _narrowed(image, name, check)
    check()
    try:
        if is_file:
            if isinstance(image.info.get("transparency"), bytes):
                del image.info["transparency"]  # converting would drop it too, but with a warning
            if image.mode != "RGB":  # else it would be copied twice
                image = image.convert("RGB")  # a key colour stays noted, an alpha channel is gone
        check()
        if "A" in image.getbands() or image.info.get("transparency") is not None:
            return _on_white(image, check)
        return image.convert("RGB")
    except Left:
        raise
    except Exception as error:
        raise ValueError(f"{name}: mode {image.mode} has no way to RGB ({reason(error)}); save it as PNG") from error


def _on_white(image: Image.Image, check: Callable[[], None]) -> Image.Image:
    rgb = Image.new("RGB", image.size)
    for top, band in _bands(image, check):
        layer = band.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        rgb.paste(Image.alpha_composite(white, layer).convert("RGB"), (0, top))
    return rgb


def _bands(image: Image.Image, check: Callable[[], None]) -> Iterator[tuple[int, Image.Image]]:
    """Bands of rows, with the first row of each. What makes an array of a large image, or stops other threads, is done
    with one band at a time."""
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        check()
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _high_bytes(image: Image.Image, check: Callable[[], None]) -> Image.Image:
    """The upper 8 of 16 bits."""
    grey = Image.new("L", image.size)
    for top, band in _bands(image, check):
        grey.paste(Image.fromarray((np.asarray(band) >> 8).astype(np.uint8)), (0, top))
    return grey


def _narrowed(image: Image.Image, name: str, check: Callable[[], None]) -> Image.Image:
    """Modes I and F do not say what white is. Up to 255 the reference's reading loses nothing and holds;
    above, I is 16-bit grey (so Pillow reads 16-bit PGM); what would be clipped is an error."""
    ends = [(np.min(values), np.max(values)) for values in (np.asarray(band) for _, band in _bands(image, check))]
    low, high = np.min([least for least, _ in ends]), np.max([most for _, most in ends])
    if image.mode == "I" and low >= 0 and 255 < high <= 65535:
        return _high_bytes(image, check)
    if not (low >= 0 and high <= 255):  # so written that NaN does not pass
        span = "0 to 255 or 0 to 65535" if image.mode == "I" else "0 to 255"
        raise ValueError(f"{name}: values from {low} to {high}; scale them to {span}")
    if image.mode == "F" and 0 < high <= 1:
        raise ValueError(f"{name}: values from {low} to {high}, but white is 255 in mode F; multiply by 255")
    return image


def too_large(max_pixels: int) -> str:
    """What is wrong with more pixels than these, and what to do."""
    return (
        f"more than the limit of {max_pixels} pixels; scale it down, or raise max_pixels (--max-pixels) if you trust it"
    )


def reason(error: Exception) -> str:
    """The system's or Pillow's words for an error, shortened."""
    return printable(getattr(error, "strerror", None) or str(error) or type(error).__name__, 100)
