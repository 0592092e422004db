"""Picture -> tiles: resizing and cutting, on 8-bit pixels with Pillow's Lanczos filter.

Port of transformers, `models/smolvlm/image_processing_pil_smolvlm.py`: the pixels are equal to the bit.
Sizes are (width, height) in pixels, as in Pillow.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .processor_config import ImageConfig

MAX_SIDE = 4096  # pixels; no side is ever resized beyond this


@dataclass(frozen=True)
class Layout:
    """How a picture is cut: `rows` x `columns` tiles and the global image, or one tile alone (0 x 0).

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
    """Decide how a picture of this (width, height) is cut; no pixels are needed."""
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


def cut(image: Image.Image, layout: Layout, tile_size: int) -> np.ndarray:
    """Resize and cut an RGB picture.

    Returns:
        (num_tiles, tile_size, tile_size, 3) uint8: tiles row-major, the global image last.
    """
    image = resize(resize(image, layout.fitted), layout.grid)
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


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Lanczos; a picture that has the size already is returned as it is, as Pillow would copy it."""
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def _rows_first(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize along rows, then along columns: the order of the reference's tensors, and not always of Pillow."""
    return resize(resize(image, (size[0], image.height)), size)


def _even(side: int) -> int:
    return side + side % 2


def _multiple(side: int, tile: int) -> int:
    return math.ceil(max(side, 1) / tile) * tile
