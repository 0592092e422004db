"""Every kind of source gives the reference's pixels, and what is no picture is named in one line."""

import base64
import http.server
import io
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.pictures import ORIENTATION, error_line, palettes_with_transparency, picture, pixels, reference, saved

from mlx_smolvlm.media.fetch import FetchError, FetchPolicy, refuse_private_addresses
from mlx_smolvlm.media.images import describe_source, load_image

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


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_read_and_said(tmp_path: Path, format: str) -> None:
    path = tmp_path / "two"
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    red.save(path, format, save_all=True, append_images=[blue], duration=100, lossless=True)
    with pytest.warns(UserWarning, match="two: an animation, of which the first frame is read; pass it with --video"):
        assert load_image(path).getpixel((4, 4)) == (255, 0, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_image(path, page=1)
        load_image(saved(red, format))


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
