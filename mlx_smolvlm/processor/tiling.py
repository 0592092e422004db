"""Image -> tiles: resizing and cutting, on 8-bit pixels with Pillow's Lanczos filter.

Port of transformers, `models/smolvlm/image_processing_pil_smolvlm.py`: the pixels are equal to the bit.
Sizes are (width, height) in pixels, as in Pillow.
"""

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..options import MAX_SIDE
from .processor_config import ImageConfig

BANDED_PIXELS = 2 * 1024**2  # of an image from which on several threads are worth starting
BANDS = min(4, os.cpu_count() or 1)
MAX_BAND_PIXELS = 8 * 1024**2  # a cancel waits for the bands in flight


@dataclass(frozen=True)
class Layout:
    """How an image is cut: `rows` x `columns` tiles and the global image, or one tile alone (0 x 0).

    `fitted` and `grid` are the (width, height) of the two resizing steps before cutting.
    """

    rows: int
    columns: int
    fitted: tuple[int, int]
    grid: tuple[int, int]

    @property
    def num_tiles(self) -> int:
        """Tiles that the encoder sees, the global image included."""
        return self.rows * self.columns + 1


def fit(size: tuple[int, int], longest_edge: int) -> tuple[int, int]:
    """Scale so that the longest side is exactly `longest_edge`, up or down; the other side is made even."""
    width, height = size
    aspect_ratio = width / height
    if width >= height:
        width, height = longest_edge, _even(int(longest_edge / aspect_ratio))
    else:
        width, height = _even(int(longest_edge * aspect_ratio)), longest_edge
    width, height = max(width, 1), max(height, 1)
    aspect_ratio = width / height
    if width >= height and width > MAX_SIDE:
        width, height = MAX_SIDE, int(MAX_SIDE / aspect_ratio)
    elif height > width and height > MAX_SIDE:
        width, height = int(MAX_SIDE * aspect_ratio), MAX_SIDE
    return max(width, 1), max(height, 1)


def plan(size: tuple[int, int], config: ImageConfig) -> Layout:
    """Decide how an image of this (width, height) is cut; no pixels are needed."""
    fitted = fit(size, config.longest_edge)
    tile = config.tile_size
    if not config.do_image_splitting:
        return Layout(0, 0, fitted, (tile, tile))
    width, height = fitted
    aspect_ratio = width / height
    if width >= height:
        width = _multiple(width, tile)
        height = _multiple(int(width / aspect_ratio), tile)
    else:
        height = _multiple(height, tile)
        width = _multiple(int(height * aspect_ratio), tile)
    if width <= tile and height <= tile:
        return Layout(0, 0, fitted, (width, height))
    return Layout(height // tile, width // tile, fitted, (width, height))


def on_grid(image: Image.Image, layout: Layout, check_cancelled: Callable[[], None] = lambda: None) -> Image.Image:
    """An RGB image resized to what is cut, `layout.grid`."""
    return resize(resize(image, layout.fitted, check_cancelled), layout.grid, check_cancelled)


def cut_grid(image: Image.Image, layout: Layout, tile_size: int) -> np.ndarray:
    """Cut what `on_grid` has resized.

    Returns:
        (num_tiles, tile_size, tile_size, 3) uint8: tiles row-major, the global image last.
    """
    tiles = np.empty((layout.num_tiles, tile_size, tile_size, 3), np.uint8)
    pixels = np.asarray(image)
    for index in range(layout.rows * layout.columns):
        top, left = (tile_size * step for step in divmod(index, layout.columns))
        tiles[index] = pixels[top : top + tile_size, left : left + tile_size]
    tiles[-1] = np.asarray(resize(image, (tile_size, tile_size)))
    return tiles


def squeeze(image: Image.Image, longest_edge: int, tile_size: int) -> np.ndarray:
    """A video frame as one tile, (tile_size, tile_size, 3) uint8: fitted, then squeezed to a square."""
    fitted = _rows_first(image, fit(image.size, min(longest_edge, MAX_SIDE)))
    return np.asarray(_rows_first(fitted, (tile_size, tile_size)))


def resize(
    image: Image.Image, size: tuple[int, int], check_cancelled: Callable[[], None] = lambda: None
) -> Image.Image:
    """Lanczos; an image that has the size already is returned as it is, as Pillow would copy it."""
    if image.size == size:
        return image
    fewer_columns, fewer_rows = image.width - size[0], image.height - size[1]
    is_large = image.width * image.height >= BANDED_PIXELS
    if is_large and fewer_columns > 0 and 0 < fewer_rows <= 2 * fewer_columns:
        return _resized_in_bands(image, size, check_cancelled)
    return image.resize(size, Image.Resampling.LANCZOS)


def _resized_in_bands(image: Image.Image, size: tuple[int, int], check: Callable[[], None]) -> Image.Image:
    """The same pixels, made by several threads, of an image that shrinks in both directions.

    Pillow resizes along rows and then along columns, with 8-bit pixels between, so rows can be shared out, and then
    columns. (From version 13 on the other way round, where more than twice as many rows as columns go.)
    """
    bands = max(BANDS, image.width * image.height // MAX_BAND_PIXELS)
    with ThreadPoolExecutor(BANDS) as pool:
        for across, step in ((1, (size[0], image.height)), (0, size)):
            edges = sorted({number * step[across] // bands for number in range(bands + 1)})
            resized = Image.new("RGB", step)

            def part(first: int, last: int, image: Image.Image = image, across: int = across) -> Image.Image:
                check()
                box = (first, 0, last, image.height) if across == 0 else (0, first, image.width, last)
                width, height = (last - first, size[1]) if across == 0 else (size[0], last - first)
                return image.crop(box).resize((width, height), Image.Resampling.LANCZOS)

            for first, band in zip(edges, pool.map(part, edges, edges[1:]), strict=False):
                resized.paste(band, (first, 0) if across == 0 else (0, first))
            image = resized
    return image


def _rows_first(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize along rows, then along columns: the order of the reference's tensors, and not always of Pillow."""
    return resize(resize(image, (size[0], image.height)), size)


def _even(side: int) -> int:
    return side + side % 2


def _multiple(side: int, tile: int) -> int:
    return math.ceil(max(side, 1) / tile) * tile
