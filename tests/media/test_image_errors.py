"""What is no picture, or a broken or huge one, is named in one line."""

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile
from support.pictures import error_line, picture, pixels, png, saved

from mlx_smolvlm.media.fetch import FetchError
from mlx_smolvlm.media.images import MAX_IMAGE_PIXELS, describe_source, load_image


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty"),
        (b"hello\n", "text, not an image"),
        (b"P5 is a course, not a PGM", "text, not an image"),
        (b"BMW drives by", "text, not an image"),
        (b"%PDF-1.7\n\x00\x01", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"8BPS\x00\x01", "Photoshop"),
        (b"  <!DOCTYPE html><html>", "web page"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41", "--video"),
        (b"\x1aE\xdf\xa3\x01\x00", "--video"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "--video"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\x00\x01\x02\x03" * 9, "not an image of a known format; expected PNG, JPEG"),
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


def test_a_closed_file_is_named(tmp_path: Path) -> None:
    """The message said "read of closed file", of none."""
    (tmp_path / "a.png").write_bytes(b"x")
    with (tmp_path / "a.png").open("rb") as file:
        pass
    with pytest.raises(ValueError, match=r"a\.png: cannot be read \(read of closed file\); pass a file opened in"):
        load_image(file)
