"""Pictures that are slow, or take much memory, though they have few pixels."""

import io
import os
import struct
import threading
import time

import numpy as np
import pytest
from PIL import Image
from support.slow_cases import quick_and_slow

from mlx_smolvlm.media import image_files, image_limits, leaving, separate_decoding
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


def encoded(kind: str, size: tuple[int, int] = (256, 256), **options: object) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize(size).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["AVIF", "WEBP", "TIFF", "BMP", "JPEG"])
def test_a_cancel_does_not_wait_for_a_decoder_that_cannot_be_stopped(monkeypatch, kind: str) -> None:
    content = encoded(kind)
    pixels = load_image(content)
    monkeypatch.setattr(image_files, "LONG_PIXELS", 0)
    assert load_image(content) == pixels  # in a thread
    with pytest.raises(ValueError, match=rf"cut short|damaged {kind} header"):
        load_image(content[: len(content) // 2])
    is_decoding, may_end = threading.Event(), threading.Event()
    original = image_files._load

    def slow(*arguments: object) -> Image.Image:
        is_decoding.set()
        may_end.wait(20)
        return original(*arguments)

    def check() -> None:
        if is_decoding.is_set():
            raise InterruptedError("cancelled")

    monkeypatch.setattr(image_files, "_load", slow)
    start = time.monotonic()
    with pytest.raises(InterruptedError):
        load_image(content, check_cancelled=check)
    assert time.monotonic() - start < 10  # it would take 20
    may_end.set()
    settled()


def settled() -> None:
    until_s = time.monotonic() + 5
    while leaving.BUDGET.used and time.monotonic() < until_s:
        time.sleep(0.01)
    assert not leaving.BUDGET.used


def test_a_decoder_that_is_left_keeps_its_descriptor(tmp_path) -> None:
    """libtiff reads by its number, which another file could have once the caller has closed this one."""
    path = tmp_path / "a"
    path.write_bytes(b"content")
    with path.open("rb") as file:
        checked = image_limits.CheckedFile(file, lambda: None)
        descriptor = checked.fileno()
    assert os.pread(descriptor, 9, 0) == b"content"
    del checked
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "I;16"])
def test_jpeg_2000_is_decoded_in_a_process_of_its_own(monkeypatch, mode: str) -> None:
    """In this one, no thread could do anything meanwhile, for up to six seconds."""
    file = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 2**16, (40, 30, 4), dtype=np.uint16)
    pixels = values[..., 0] if mode == "I;16" else (values >> 8).astype(np.uint8)
    image = Image.fromarray(pixels) if mode == "I;16" else Image.fromarray(pixels, "RGBA").convert(mode)
    image.save(file, "JPEG2000")
    expected = load_image(file.getvalue())
    monkeypatch.setattr(image_files, "LONG_BYTES", 0)
    monkeypatch.setattr("PIL.Jpeg2KImagePlugin.Jpeg2KImageFile.load", None)
    assert load_image(file.getvalue()) == expected
    with pytest.raises(ValueError, match="damaged or cut short"):
        load_image(file.getvalue()[:-300])


def test_a_process_that_decodes_is_bounded_and_ended(monkeypatch) -> None:
    content = encoded("JPEG2000")
    monkeypatch.setattr(image_files, "LONG_BYTES", 0)
    started = []
    popen = separate_decoding.subprocess.Popen

    def noted(*arguments: object, **options: object) -> object:
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(separate_decoding.subprocess, "Popen", noted)
    monkeypatch.setattr(separate_decoding, "SCRIPT", "print('ready', flush=True)\nimport time\ntime.sleep(60)")

    def check() -> None:
        if started:
            raise InterruptedError("cancelled")

    start = time.monotonic()
    with pytest.raises(InterruptedError):
        load_image(content, check_cancelled=check)
    assert time.monotonic() - start < 20  # it would take 60
    assert started[0].returncode is not None
    kill = "print('ready', flush=True)\nimport os, signal\nos.kill(os.getpid(), signal.SIGXCPU)"
    monkeypatch.setattr(separate_decoding, "SCRIPT", kill)
    with pytest.raises(ValueError, match="takes longer to decode than the limit of 12 s"):
        load_image(content)
    monkeypatch.setattr(separate_decoding, "SCRIPT", "print('ready', flush=True)\nimport os\nos.abort()")
    with pytest.raises(ValueError, match=r"damaged or cut short \(its decoder ended with status -6"):
        load_image(content)


@pytest.mark.parametrize("fault", ["no program", "no library", "frozen"])
def test_without_another_process_jpeg_2000_is_decoded_here(monkeypatch, fault: str) -> None:
    content = encoded("JPEG2000")
    expected = load_image(content)
    monkeypatch.setattr(image_files, "LONG_BYTES", 0)
    if fault == "no program":
        monkeypatch.setattr(separate_decoding.sys, "executable", "/nowhere/python3")
    elif fault == "no library":
        monkeypatch.setattr(separate_decoding, "SCRIPT", "import no_such_library")
    else:
        monkeypatch.setattr(separate_decoding.sys, "frozen", True, raising=False)
    assert load_image(content) == expected


def test_laying_on_white_in_bands_makes_the_same_pixels(monkeypatch) -> None:
    rgba = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 23, 4), dtype=np.uint8), "RGBA")
    whole = load_image(rgba)
    monkeypatch.setattr(image_files, "BAND_PIXELS", 5 * 23)
    assert load_image(rgba) == whole
