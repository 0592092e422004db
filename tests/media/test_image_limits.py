"""Pictures that are slow, or take much memory, though they have few pixels."""

import io
import struct
import threading
import time

import numpy as np
import pytest
from PIL import Image
from support.slow_cases import quick_and_slow

from mlx_smolvlm.media import image_files, image_limits
from mlx_smolvlm.media.image_limits import MAX_IMAGE_FILE_BYTES, MAX_IMAGE_SIDE, MIN_SCANS
from mlx_smolvlm.media.images import load_image


def jpeg(num_extra_scans: int, size: tuple[int, int] = (64, 48)) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    last_scan = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + num_extra_scans * last_scan + b"\xff\xd9"


def test_scans_are_limited_by_the_pixels_that_they_go_over() -> None:
    """4,000 scans of 12 megapixels took 46 seconds; of a small picture they are no burden."""
    assert load_image(jpeg(100)).size == (64, 48)
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"a JPEG of \d+ scans, the limit at its size is \d+"):
        load_image(jpeg(4000, (4000, 3000)))
    assert time.monotonic() - start < 5
    with pytest.raises(ValueError, match=f"the limit at its size is {MIN_SCANS}"):
        load_image(jpeg(100), max_pixels=64 * 48)


@pytest.mark.parametrize("size", [(1, 178_956_970), (178_956_970, 1), (1, MAX_IMAGE_SIDE + 1)])
def test_a_side_has_a_limit_of_its_own(size: tuple[int, int]) -> None:
    """Rows of a pixel each took 5.8 GB."""
    header = b"P5 %d %d 255 " % size
    problem = f"{size[0]}x{size[1]} pixels, the limit of one side is {MAX_IMAGE_SIDE}"
    with pytest.raises(ValueError, match=problem):
        load_image(header + b"\0" * 100)
    with pytest.raises(ValueError, match=problem):
        load_image(np.broadcast_to(np.uint8(0), size[::-1]))


def test_a_long_picture_within_the_limit_is_read() -> None:
    assert load_image(b"P5 1 %d 255 " % MAX_IMAGE_SIDE + bytes(MAX_IMAGE_SIDE)).size == (1, MAX_IMAGE_SIDE)


def test_a_sparse_file_is_refused_by_its_size(tmp_path) -> None:
    path = tmp_path / "sparse.jpg"
    path.write_bytes(jpeg(0))
    with path.open("r+b") as file:
        file.truncate(30 * 10**9)
    with pytest.raises(ValueError, match=f"has 30000000000 bytes, the limit .* is {MAX_IMAGE_FILE_BYTES}"):
        load_image(path)


def plain_ppm(side: int) -> bytes:
    """Numbers in ASCII, which are slow to read."""
    return b"P2 %d %d 255\n" % (side, side) + b"7 " * side**2


def run_lengths(side: int) -> bytes:
    """A BMP file in which each run is a pixel long; Pillow reads them one at a time, in Python."""
    data = (b"\x01\x07" * side + b"\0\0") * side + b"\0\1"
    start = 14 + 40 + 256 * 4
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(data), 2835, 2835, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + bytes(256 * 4) + data


SLOW = {"ppm": plain_ppm(1200), "bmp": run_lengths(300), "jpeg": jpeg(800, (400, 300))}


@pytest.mark.parametrize("name", quick_and_slow(SLOW, ["bmp", "jpeg"]))
def test_decoding_has_a_limit_of_time(monkeypatch, name: str) -> None:
    """At full size: minutes for PPM and BMP, 25 seconds for a JPEG file of dense scans."""
    assert load_image(SLOW[name]).size[0] in (300, 400, 1200)
    monkeypatch.setattr(image_limits, "MAX_DECODE_S", 1e-3)
    with pytest.raises(
        ValueError, match=r"takes longer to decode than the limit of 0\.001 s; save it in another format"
    ):
        load_image(SLOW[name])


@pytest.mark.parametrize("kind", ["JPEG2000", "AVIF", "WEBP"])
def test_formats_that_are_slow_for_their_bytes_have_limits_of_their_own(monkeypatch, kind: str) -> None:
    """JPEG 2000 took 350 ns a byte, 80 seconds at the limit of pixels, with all other threads standing still."""
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, kind)
    assert load_image(file.getvalue()).size == (256, 256)
    monkeypatch.setitem(image_limits.MAX_BYTES_OF_FORMAT, kind, 100)
    with pytest.raises(ValueError, match=f"bytes, the limit of a {kind} file is 100; save it in another format"):
        load_image(file.getvalue())


@pytest.mark.parametrize("kind", ["AVIF", "WEBP"])
def test_a_cancel_does_not_wait_for_a_decoder_that_cannot_be_stopped(monkeypatch, kind: str) -> None:
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, kind)
    pixels = load_image(file.getvalue())
    monkeypatch.setattr(image_files, "_LONG_PIXELS", 0)
    assert load_image(file.getvalue()) == pixels  # in a thread
    with pytest.raises(ValueError, match=r"cut short|damaged (AVIF|WEBP) header"):
        load_image(file.getvalue()[: -file.tell() // 2])
    is_decoding, may_end = threading.Event(), threading.Event()
    original = Image.Image.load

    def slow(image: Image.Image) -> object:
        is_decoding.set()
        may_end.wait(20)
        return original(image)

    def check() -> None:
        if is_decoding.is_set():
            raise InterruptedError("cancelled")

    for plugin in ("WebPImagePlugin.WebPImageFile", "AvifImagePlugin.AvifImageFile"):
        monkeypatch.setattr(f"PIL.{plugin}.load", slow)
    start = time.monotonic()
    with pytest.raises(InterruptedError):
        load_image(file.getvalue(), check_cancelled=check)
    assert time.monotonic() - start < 1
    may_end.set()
