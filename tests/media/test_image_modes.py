"""Colour modes, transparency, depth and arrays give the reference's pixels."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.pictures import error_line, palettes_with_transparency, picture, pixels, png, reference, saved

from mlx_smolvlm.media import image_files
from mlx_smolvlm.media.images import load_image


@pytest.mark.parametrize("index", range(4))
def test_a_palette_with_transparency_shows_its_colours(index: int) -> None:
    """Pillow warns about some of these while it converts them; here that would be an error."""
    content = saved(list(palettes_with_transparency())[index], "PNG")
    loaded = pixels(load_image(content))
    plain = reference(Image.open(io.BytesIO(content)))
    is_key = Image.open(io.BytesIO(content)).info.get("transparency") == 3
    assert np.all((loaded == plain) | (is_key & (loaded == 255)))
    assert len(np.unique(loaded.reshape(-1, 3), axis=0)) > 4


@pytest.mark.parametrize("mode", ["1", "L", "P", "PA", "LA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"])
def test_eight_bit_modes_convert_as_in_the_reference(mode: str) -> None:
    opaque = picture("RGBA")
    opaque.putalpha(255)
    image = picture("RGB") if mode in ("RGBX", "HSV", "LAB") else opaque
    image = image.convert("LA").convert("PA") if mode == "PA" else image.convert(mode)
    assert image.mode == mode
    assert np.array_equal(pixels(load_image(image)), reference(image))


@pytest.mark.parametrize(
    ("mode", "format"), [("1", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP"), ("CMYK", "JPEG"), ("CMYK", "TIFF")]
)
def test_files_of_other_modes_decode_as_in_the_reference(mode: str, format: str) -> None:
    content = saved(picture(mode), format)
    opened = Image.open(io.BytesIO(content))
    assert opened.mode == mode
    assert np.array_equal(pixels(load_image(content)), reference(opened))


def test_a_file_s_alpha_is_dropped_as_the_reference_drops_it() -> None:
    image = Image.new("RGBA", (1, 1), (10, 20, 30, 0))
    assert load_image(saved(image, "PNG")).getpixel((0, 0)) == (10, 20, 30)


def test_alpha_of_pil_images_and_arrays_turns_white_as_in_the_reference() -> None:
    image = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    image.putpixel((1, 0), (0, 100, 200, 51))  # a fifth of the colour, the rest white
    expected = [[[255, 255, 255], [204, 224, 244]]]
    assert pixels(load_image(image)).tolist() == expected
    assert pixels(load_image(np.asarray(image))).tolist() == expected
    assert pixels(load_image(image.convert("LA"))).tolist()[0][0] == [255, 255, 255]


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_key_colour_turns_white_wherever_it_comes_from(mode: str) -> None:
    """Logos are drawn on it; the reference shows them on white."""
    image = Image.new("RGB", (2, 1), (0, 0, 0))
    image.putpixel((1, 0), (200, 200, 200))
    image = image.quantize(2) if mode == "P" else image.convert(mode)
    image.info["transparency"] = image.getpixel((0, 0))
    for source in (image, saved(image, "PNG")):
        assert pixels(load_image(source)).tolist() == [[[255, 255, 255], [200, 200, 200]]]


DEEP = np.array([[0, 255, 256, 511, 4095, 40000, 65535]], np.uint16)
DEEP_AS_8_BIT = [0, 0, 1, 1, 15, 156, 255]


def deep_sources() -> dict[str, Any]:
    big_endian = Image.frombytes("I;16B", (7, 1), DEEP.astype(">u2").tobytes())
    return {
        "PNG": saved(Image.fromarray(DEEP), "PNG"),
        "TIFF": saved(Image.fromarray(DEEP), "TIFF"),
        "PGM": b"P5 7 1 65535\n" + DEEP.astype(">u2").tobytes(),
        "I;16": Image.fromarray(DEEP),
        "I;16B": big_endian,
        "I": Image.fromarray(DEEP.astype(np.int32)),
        "uint16": DEEP,
        ">u2": DEEP.astype(">u2"),
        "uint16 colour": np.stack([DEEP] * 3, -1),
    }


@pytest.mark.parametrize("kind", deep_sources())
def test_sixteen_bits_keep_their_high_byte_instead_of_clipping(kind: str) -> None:
    result = pixels(load_image(deep_sources()[kind]))
    assert result[0].tolist() == [[value] * 3 for value in DEEP_AS_8_BIT]


def test_sixteen_bit_grey_and_colour_agree() -> None:
    """Pillow itself keeps the high byte of 16-bit colour."""
    values = DEEP.astype(">u2")
    grey = load_image(png(7, 1, 16, 0, b"\0" + values.tobytes()))
    colour = load_image(png(7, 1, 16, 2, b"\0" + np.repeat(values, 3).tobytes()))
    assert grey.tobytes() == colour.tobytes()


def test_wide_modes_within_eight_bits_convert_as_in_the_reference() -> None:
    for mode in ("I", "F"):
        image = picture("L").convert(mode)
        assert np.array_equal(pixels(load_image(image)), reference(image))
    assert load_image(Image.new("F", (2, 2))).getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("mode", "values"), [("I", [0, 65536]), ("I", [-1, 5]), ("F", [0, 256]), ("F", [0, np.nan]), ("F", [0, 1.0])]
)
def test_wide_modes_that_would_be_clipped_are_refused(mode: str, values: list[float]) -> None:
    image = Image.fromarray(np.array([values], np.int32 if mode == "I" else np.float32))
    assert "values from" in error_line(image)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "TIFF", "PNG"])
def test_the_first_frame_counts(format: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if format == "WEBP" else {}
    content = saved(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert load_image(content, page=1).getpixel((0, 0)) == (255, 0, 0)
    opened = Image.open(io.BytesIO(content))
    opened.seek(1)  # the caller of this one has chosen
    assert load_image(opened).getpixel((0, 0)) == (0, 255, 0)


# Arrays


def test_array_shapes_and_types() -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    expected = np.stack([grey] * 3, -1)
    for array in (grey, grey[:, :, None], np.asfortranarray(grey), expected):
        assert np.array_equal(pixels(load_image(array)), expected)
    assert pixels(load_image(np.array([[True, False]])))[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_give_back_the_bytes_they_came_from(dtype: type) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(pixels(load_image((values / 255).astype(dtype)))[..., 0], values)


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (np.zeros((3, 8, 9), np.uint8), "pass image.transpose(1, 2, 0)"),
        (np.zeros((8, 9, 2), np.uint8), "expected (height, width)"),
        (np.zeros((1, 8, 9, 3), np.uint8), "pass one image"),
        (np.zeros(8, np.uint8), "expected (height, width)"),
        (np.zeros((0, 9, 3), np.uint8), "has no pixels"),
        (np.zeros((8, 9), np.int64), "dtype int64"),
        (np.zeros((8, 9), np.complex64), "dtype complex64"),
        (np.full((8, 9), 255.0), "values from 255.0 to 255.0; floats go from 0 to 1"),
        (np.full((8, 9), -0.1), "floats go from 0 to 1"),
        (np.array([[0.5, np.nan]]), "floats go from 0 to 1"),
    ],
)
def test_other_arrays_are_refused_by_name(array: np.ndarray, problem: str) -> None:
    assert problem in error_line(array)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "F"])
def test_deep_images_are_narrowed_band_by_band(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """As a whole, they held up every other thread, and took twice their memory."""
    values = np.arange(23 * 17).reshape(17, 23)
    if mode == "F":
        image, expected = Image.fromarray((values % 256).astype(np.float32)), values % 256
    else:
        image = Image.fromarray((values * 167).astype(np.int32)).convert(mode)
        expected = values * 167 >> 8
    whole = pixels(load_image(image))
    assert np.array_equal(whole[..., 0], expected)
    monkeypatch.setattr(image_files, "BAND_PIXELS", 5 * 23)
    assert np.array_equal(pixels(load_image(image)), whole)
