"""Decoded frames -> images as they are to be seen: RGB, upright, with square pixels, on white."""

from fractions import Fraction
from struct import unpack
from typing import Any

from PIL import Image

from .container import reason

WIDEST_PIXEL = 4  # a pixel's width over its height, or the other way round; more is a mistake in a header
# What turns a stored image upright, by the signs of the display matrix: of a and d where these are larger than b
# and c (rows stay rows), else of b and c. FFmpeg's matrix takes (x, y) to (a x + c y, b x + d y).
_ROWS = {
    (False, True): Image.Transpose.FLIP_LEFT_RIGHT,
    (True, False): Image.Transpose.FLIP_TOP_BOTTOM,
    (False, False): Image.Transpose.ROTATE_180,
}
_COLUMNS = {
    (True, True): Image.Transpose.TRANSPOSE,
    (True, False): Image.Transpose.ROTATE_270,
    (False, True): Image.Transpose.ROTATE_90,
    (False, False): Image.Transpose.TRANSVERSE,
}
_HARDWARE_FORMATS = {"nv12": "yuv420p", "p010le": "yuv420p10le"}


class Upright:
    """Makes images of a stream's frames; one for all of them, as each starts threads."""

    def __init__(self, stream: Any):
        from av.video.reformatter import VideoReformatter

        self._converter = VideoReformatter()
        self._aspect = stream.sample_aspect_ratio  # now: the stream goes with its container, which may be reopened

    def __call__(self, frame: Any) -> Image.Image:
        """The image of a frame. Raises ValueError if FFmpeg cannot turn its pixels into RGB."""
        kind = frame.format.name
        try:
            if kind in _HARDWARE_FORMATS:  # the planes that a software decoder gives, so that colours are equal
                frame = frame.reformat(format=_HARDWARE_FORMATS[kind])
            image = self._converted(frame, "RGB", "rgb24")
            if any(component.is_alpha for component in frame.format.components) or frame.format.name == "pal8":
                alpha = self._converted(frame, "RGBA", "rgba").getchannel("A")
                if alpha.getextrema() != (255, 255):
                    image = Image.composite(image, Image.new("RGB", image.size, "white"), alpha)
        except MemoryError:
            raise
        except Exception as error:
            raise ValueError(f"frames with pixels of the kind {kind} cannot be read: {reason(error)}") from None
        image = _with_square_pixels(image, self._aspect)
        turn = _turn(frame)
        return image if turn is None else image.transpose(turn)

    def _converted(self, frame: Any, mode: str, pixel_format: str) -> Image.Image:
        plane: Any = self._converter.reformat(frame, format=pixel_format).planes[0]
        size = (frame.width, frame.height)
        return Image.frombuffer(mode, size, plane, "raw", mode, plane.line_size, 1)  # without an array between


def _with_square_pixels(image: Image.Image, aspect: Fraction | None) -> Image.Image:
    """Stretched along the side on which its pixels are longer."""
    if not aspect or aspect == 1 or not Fraction(1, WIDEST_PIXEL) <= aspect <= WIDEST_PIXEL:
        return image
    width, height = image.size
    size = (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
    return image.resize(size, Image.Resampling.BICUBIC)


def _turn(frame: Any) -> Image.Transpose | None:
    """What turns a frame upright: the nearest of the eight ways that its display matrix can mean."""
    from av.sidedata.sidedata import Type

    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return None
    a, b, _, c, d = unpack("=5i", bytes(matrix)[:20])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return None if a == d == 0 else _ROWS.get((a > 0, d > 0))
    return _COLUMNS[b > 0, c > 0]
