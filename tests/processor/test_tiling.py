"""Tiling against the reference, on the released geometries and on sizes where rounding matters."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image
from support.golden_cases import GOLDENS
from support.media import picture, sized_picture

from mlx_smolvlm.processor.processor_config import ImageConfig
from mlx_smolvlm.processor.tiling import cut_grid, fit, on_grid, plan, resize, squeeze

RECORDS = json.loads((GOLDENS / "tiling.json").read_text())
RECORDS = RECORDS["cases"] if isinstance(RECORDS, dict) else RECORDS


def config_of(record: dict) -> ImageConfig:
    return ImageConfig(record["longest_edge"], record["tile"], record["do_image_splitting"])


def tiles_of(image: Image.Image, config: ImageConfig) -> np.ndarray:
    layout = plan(image.size, config)
    return cut_grid(on_grid(image, layout), layout, config.tile_size)


def test_rows_and_columns_equal_the_reference():
    wrong = []
    for record in RECORDS:
        layout = plan((record["width"], record["height"]), config_of(record))
        if (layout.rows, layout.columns) != (record["rows"], record["cols"]):
            wrong.append((record, layout))
    assert wrong == []
    assert len(RECORDS) > 100


@pytest.mark.parametrize(
    "record",
    [record for record in RECORDS if record["sha256"]],
    ids=lambda r: f"{r['width']}x{r['height']}-{r['longest_edge']}",
)
def test_pixels_equal_the_reference_to_the_bit(record):
    config = config_of(record)
    tiles = tiles_of(sized_picture(record["width"], record["height"]), config)
    assert hashlib.sha256(tiles.tobytes()).hexdigest() == record["sha256"]


def test_global_image_is_last_and_tiles_are_row_major():
    config = ImageConfig(64, 32, True)
    image = picture("square")
    tiles = tiles_of(image, config)
    whole = np.concatenate([np.concatenate(tiles[:2], axis=1), np.concatenate(tiles[2:4], axis=1)])
    assert np.array_equal(whole, np.asarray(image.resize((64, 64), resample=1)))
    assert tiles.shape == (5, 32, 32, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1), (3, 2)])
def test_extreme_shapes_become_whole_tiles(size):
    config = ImageConfig(2048, 512, True)
    layout = plan(size, config)
    assert min(layout.grid) >= 512
    assert all(side % 512 == 0 for side in layout.grid)


def test_fit_makes_the_longest_side_exact_and_the_other_even():
    assert fit((4000, 3000), 2048) == (2048, 1536)
    assert fit((17, 9), 512) == (512, 272)  # 271.06 -> 271 -> 272; small pictures grow
    assert fit((9, 17), 512) == (272, 512)


def test_a_frame_is_one_tile_and_never_split():
    assert squeeze(picture("panorama"), 512, 128).shape == (128, 128, 3)


@pytest.mark.parametrize(
    ("size", "to"),
    [
        ((4000, 3000), (2048, 1536)),
        ((1601, 2399), (1366, 2048)),
        ((3000, 1000), (2999, 3)),
        ((2100, 2100), (1, 7)),
        ((1500, 3000), (768, 1536)),
    ],
)
def test_large_pictures_are_resized_by_several_threads_to_the_same_pixels(size, to):
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    assert np.array_equal(np.asarray(resize(image, to)), np.asarray(image.resize(to, Image.Resampling.LANCZOS)))
