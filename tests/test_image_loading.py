"""Every kind of source gives the reference's pixels, and what is no picture is named in one line."""

import base64
import http.server
import io
import os
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from mlx_smolvlm.fetch import FetchError, FetchPolicy, refuse_private_addresses
from mlx_smolvlm.image_loading import MAX_IMAGE_PIXELS, describe_source, load_image

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


# Sources


def test_every_kind_of_source_gives_the_same_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = np.asarray(picture())
    content = saved(picture(), "PNG")
    path = tmp_path / "a picture.png"
    path.write_bytes(content)
    monkeypatch.setenv("HOME", str(tmp_path))
    sources: list[Any] = [
        path,
        str(path),
        "~/a picture.png",
        path.as_uri(),
        path.as_uri().replace("file:///", "file://localhost/"),
        path.as_uri().replace("file:///", "FILE:/"),
        "data:image/png;base64," + base64.b64encode(content).decode(),
        content,
        bytearray(content),
        memoryview(content),
        picture(),
        Image.open(io.BytesIO(content)),
        expected,
        expected[::-1][::-1],
        np.asarray(picture()),
    ]
    for source in sources:
        assert np.array_equal(pixels(load_image(source)), expected), describe_source(source)


@pytest.mark.parametrize("name", ["http", "data", "file", "data.png", "a#b?c.png", "100%41.png"])
def test_a_path_that_resembles_an_address_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).write_bytes(saved(picture(), "PNG"))
    monkeypatch.chdir(tmp_path)
    assert load_image(name).size == (7, 5)
    assert load_image((tmp_path / name).as_uri()).size == (7, 5)


def test_the_source_stays_as_it_is() -> None:
    image = picture()
    image.getexif()[ORIENTATION] = 6
    before = image.tobytes()
    result = load_image(image)
    result.paste((1, 2, 3), (0, 0, 5, 7))
    assert image.tobytes() == before and image.size == (7, 5) and image.getexif()[ORIENTATION] == 6
    array = np.asarray(picture()).copy()
    load_image(array).paste((1, 2, 3), (0, 0, 7, 5))
    assert array.tobytes() == before


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "MPO"])
def test_ordinary_formats_decode_as_in_the_reference(format: str) -> None:
    content = saved(picture(), format)
    assert np.array_equal(pixels(load_image(content)), reference(Image.open(io.BytesIO(content))))


# Orientation


def stored_as(orientation: int, upright: np.ndarray) -> np.ndarray:
    """What a camera stores, from the EXIF text: where row 0 and column 0 of the stored picture belong."""
    return {
        1: upright,  # top, left
        2: upright[:, ::-1],  # top, right
        3: upright[::-1, ::-1],  # bottom, right
        4: upright[::-1],  # bottom, left
        5: upright.swapaxes(0, 1),  # left, top
        6: upright[:, ::-1].swapaxes(0, 1),  # right, top
        7: upright[::-1, ::-1].swapaxes(0, 1),  # right, bottom
        8: upright[::-1].swapaxes(0, 1),  # left, bottom
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_orientation_is_undone(format: str, orientation: int) -> None:
    upright, lossy = np.asarray(picture()), format == "JPEG"
    if lossy:  # flat blocks survive best
        upright = upright.repeat(8, 0).repeat(8, 1)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if lossy else {"lossless": True}
    stored = Image.fromarray(np.ascontiguousarray(stored_as(orientation, upright)))
    content = saved(stored, format, exif=exif, **options)
    result = load_image(content)
    # JPEG at quality 95 is off by 1 here; another libjpeg may round otherwise
    assert np.abs(pixels(result).astype(int) - upright).max() <= (3 if lossy else 0)
    assert np.array_equal(pixels(result), reference(Image.open(io.BytesIO(content))))
    opened = load_image(Image.open(io.BytesIO(content)))
    assert opened.tobytes() == result.tobytes()
    assert load_image(result).tobytes() == result.tobytes()  # not turned a second time


def test_orientation_in_xmp_only_is_undone() -> None:
    stored = picture()
    stored.info["xmp"] = b'<rdf:Description tiff:Orientation="6"/>'
    result = load_image(stored)
    assert np.array_equal(pixels(result), reference(stored)) and result.size == (5, 7)
    assert load_image(result).size == (5, 7)


def test_broken_metadata_does_not_spoil_sound_pixels() -> None:
    for exif in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01"):
        assert np.array_equal(pixels(load_image(saved(picture(), "PNG", exif=exif))), np.asarray(picture()))


# Modes


def palettes_with_transparency() -> Iterator[Image.Image]:
    for transparency in (3, bytes([0, 128, 255, 7])):
        image = picture("RGB").quantize(16)
        image.info["transparency"] = transparency
        yield image
    yield picture("RGBA").convert("P")
    yield picture("RGBA").quantize(8)  # an RGBA palette


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
    assert load_image(content).getpixel((0, 0)) == (255, 0, 0)
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
        (np.zeros((1, 8, 9, 3), np.uint8), "pass one picture"),
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


# What is no picture


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty"),
        (b"hello\n", "text, not a picture"),
        (b"P5 is a course, not a PGM", "text, not a picture"),
        (b"BMW drives by", "text, not a picture"),
        (b"%PDF-1.7\n\x00\x01", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"8BPS\x00\x01", "Photoshop"),
        (b"  <!DOCTYPE html><html>", "web page"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41", "--video"),
        (b"\x1aE\xdf\xa3\x01\x00", "--video"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "--video"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\x00\x01\x02\x03" * 9, "not a picture of a known format; expected PNG, JPEG"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "damaged PNG header"),
        (b"\xff\xd8\xff", "damaged JPEG header"),
        (png(0, 5, 8, 2, b""), "damaged PNG header"),
        (b"P5\n0 5\n255\n", "text"),
    ],
)
def test_other_content_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    assert problem in error_line(content)
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    assert problem in error_line(path)


def test_pictures_without_pixels_are_refused() -> None:
    assert "has no pixels (0x5)" in error_line(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000"])
def test_a_truncated_file_is_an_error_not_a_grey_area(format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = saved(Image.fromarray(noise), format)
    for fraction in (0.3, 0.6, 0.9):
        message = error_line(content[: int(len(content) * fraction)])
        assert "get a whole copy" in message
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    opened = Image.open(io.BytesIO(saved(Image.fromarray(noise), "PNG")[:2000]))
    assert "get a whole copy" in error_line(opened)


def test_a_flipped_byte_in_a_png_is_an_error() -> None:
    content = bytearray(saved(Image.fromarray(np.zeros((64, 64), np.uint8)), "PNG"))
    content[content.index(b"IDAT") + 6] ^= 0xFF
    assert "damaged" in error_line(bytes(content))


def test_hostile_bytes_only_ever_raise_value_errors() -> None:
    generator = np.random.default_rng(1)
    for format in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000"):
        sound = saved(picture(), format)
        for _ in range(40):
            content = bytearray(sound)
            for position in generator.integers(2, len(content), 3):
                content[position] = generator.integers(256)
            try:
                assert load_image(bytes(content), max_pixels=10_000).mode == "RGB"
            except ValueError as error:
                assert str(error).isprintable()


@pytest.mark.parametrize("side", [60_000, 11_000])  # Pillow raises at the first and would warn at the second
def test_a_bomb_is_refused_from_its_header(side: int) -> None:
    content = png(side, side, 8, 2, b"")
    limit = MAX_IMAGE_PIXELS if side == 60_000 else 100_000_000
    message = error_line(content, max_pixels=limit)
    assert f"{side}x{side}" in message and f"limit of {limit} pixels" in message


def test_large_pictures_within_the_limit_do_not_warn() -> None:
    """Pillow warns from 89 million pixels on; this one reaches the decoder, which finds no data."""
    assert "get a whole copy" in error_line(png(11_000, 11_000, 1, 0, b""))


def test_the_limit_is_ours_alone() -> None:
    before = Image.MAX_IMAGE_PIXELS
    for source in (saved(picture(), "PNG"), picture(), np.asarray(picture())):
        assert load_image(source, max_pixels=35).size == (7, 5)
        assert "limit of 34 pixels" in error_line(source, max_pixels=34)
    assert before == Image.MAX_IMAGE_PIXELS


def test_paths_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no such file" in error_line(tmp_path / "missing.png", FileNotFoundError)
    assert "no such file" in error_line("missing\n.png", FileNotFoundError)
    assert "a folder" in error_line(str(tmp_path), IsADirectoryError)
    assert "a folder" in error_line("", IsADirectoryError)
    assert "not a usable path" in error_line("a\0b")
    assert "not a usable path" in error_line("x" * 5000)
    assert "not a usable path" in error_line("~nobody-has-this-name/a.png")
    assert "another computer" in error_line("file://host/a.png")
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in error_line(tmp_path / "pipe")

    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "locked.png").touch()
    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    assert "may not be read" in error_line(tmp_path / "locked.png", PermissionError)


def test_other_sources_are_refused_by_type() -> None:
    for source in (None, 3, [picture()], object()):
        assert "pass a path, URL, bytes" in error_line(source, TypeError)
    error_line("ftp://host/a.png", FetchError)
    assert "not valid base64" in error_line("data:image/png;base64,****")


HEIC_HEAD = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(40)


def test_heic_without_its_plugin_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert "convert it to JPEG or PNG, or pip install pillow-heif" in error_line(HEIC_HEAD)


def test_heic_with_its_plugin_opens() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), (200, 100, 50))).save(buffer)
    result = load_image(buffer.getvalue())
    assert result.size == (64, 48)
    assert np.abs(pixels(result).astype(int) - [200, 100, 50]).max() <= 4  # lossy
    assert "damaged HEIC" in error_line(HEIC_HEAD)


def test_descriptions_are_short_and_keep_secrets() -> None:
    assert describe_source("https://me:pw@host/a.png?key=1") == "https://host/a.png"
    assert describe_source("data:image/png;base64," + "A" * 10**6) == "data:image/png;base64,... (1000022 characters)"
    assert describe_source(memoryview(bytes(12)).cast("H")) == "image bytes (12 bytes)"
    assert describe_source(picture()) == "PIL image (RGB, 7x5)"
    assert describe_source(np.zeros((2, 3), np.uint8)) == "numpy array (uint8, shape (2, 3))"
    assert len(describe_source("x/" * 4000)) <= 200


# Web addresses

CONTENT = {
    "/a.png": ("image/png", saved(picture(), "PNG")),
    "/page.png": ("image/png", b"<html><body>Please log in</body></html>"),
    "/clip": ("video/mp4", b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41"),
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        kind, body = CONTENT[self.path.partition("?")[0]]
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_web_address_gives_its_picture(url: str) -> None:
    assert np.array_equal(pixels(load_image(f"{url}/a.png")), np.asarray(picture()))


def test_a_web_page_or_video_instead_of_a_picture_is_named_without_the_query(url: str) -> None:
    assert f"{url}/page.png: a web page" in error_line(f"{url}/page.png?key=secret")
    assert "--video" in error_line(f"{url}/clip")


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        (FetchPolicy(check_address=refuse_private_addresses), "public internet"),
        (FetchPolicy(max_bytes=20), "limit of 20 bytes"),
    ],
)
def test_the_policy_holds_for_pictures(url: str, policy: FetchPolicy, problem: str) -> None:
    assert problem in error_line(f"{url}/a.png", FetchError, policy=policy)


def test_the_policy_limits_data_urls() -> None:
    assert "limit of 2 bytes" in error_line("data:,abc", policy=FetchPolicy(max_bytes=2))


def run_in_threads(task: Callable[[], None], count: int) -> list[BaseException]:
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            task()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def test_threads_do_not_disturb_each_other_or_the_warning_filters() -> None:
    filters = list(warnings.filters)
    contents = [saved(image, "PNG") for image in palettes_with_transparency()]
    expected = [load_image(content).tobytes() for content in contents]

    def task() -> None:
        for _ in range(20):
            assert [load_image(content).tobytes() for content in contents] == expected

    assert run_in_threads(task, 4) == []
    assert warnings.filters == filters
