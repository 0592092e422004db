"""Images and videos of requests: what is read, what is refused with its place, and what is never connected to."""

import base64
import errno
import io
import os
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from support.leftovers import held, threads_beside_pools
from support.server import ASKED, DEMO, ask_about, data_url, image_part, question, refused_media, running_server, until

import mlx_smolvlm

PICTURE = (DEMO / "picture.png").read_bytes()


def encoded(image, kind, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def picture():
    with Image.open(io.BytesIO(PICTURE)) as image:
        return image.convert("RGB")


def test_forms_of_data_urls(server):
    text = base64.b64encode(PICTURE).decode()
    expected = server.text(question(ASKED, image_part(PICTURE)), max_tokens=40)
    for url in (
        f"DATA:IMAGE/PNG;BASE64,{text}",
        f"data:;base64,{text}",
        f"data:image/jpeg;base64,{text}",
        f"data:text/html;base64,{text}",
        f"data:image/png;base64,{base64.urlsafe_b64encode(PICTURE).decode().rstrip('=')}",
        f"data:image/png;base64, {text[:40]}\n{text[40:]}\t",
    ):
        response = ask_about(server, url)
        assert response.status_code == 200, response.text
        assert response.json()["choices"][0]["message"]["content"] == expected


@pytest.mark.filterwarnings("ignore:.*animation")  # which is said in the server's log
def test_kinds_of_images(server, picture):
    sixteen = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[274] = 6
    kinds = {
        "webp": encoded(picture, "WEBP", lossless=True),
        "cmyk": encoded(picture.convert("CMYK"), "TIFF"),
        "16 bit": encoded(sixteen, "PNG"),
        "rgba": encoded(picture.convert("RGBA"), "PNG"),
        "1x1": encoded(picture.resize((1, 1)), "PNG"),
        "animated": encoded(picture, "GIF", save_all=True, append_images=[picture.rotate(90)]),
        "upright": encoded(picture, "JPEG", exif=exif),
    }
    for name, content in kinds.items():
        response = ask_about(server, data_url(content))
        assert response.status_code == 200, (name, response.text)


@pytest.mark.parametrize(
    "content",
    [
        PICTURE[: len(PICTURE) // 2],
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        b"<!doctype html><html></html>",
        (DEMO / "clip.mp4").read_bytes(),
        b"#EXTM3U\nfile:///etc/passwd\n",
    ],
)
def test_what_is_no_image_is_refused(server, content):
    assert refused_media(server, data_url(content))["code"] == "invalid_image"


def test_images_beyond_their_bounds_are_refused(demo, picture):
    with running_server(demo, max_image_pixels=10_000, max_image_bytes=100_000, max_images=2) as server:
        assert "pixels" in refused_media(server, data_url(encoded(picture.resize((200, 200)), "PNG")))["message"]
        assert refused_media(server, data_url(b"x" * 200_000))["code"] == "invalid_image"
        assert refused_media(server, "data:image/png;base64,%%%")["code"] == "invalid_image"
        many = server.post(question(ASKED, *[image_part(PICTURE)] * 3))
        assert many.status_code == 413 and many.json()["error"]["code"] == "too_many_images"


def test_detail_low_is_one_tile(server, picture):
    large = image_part(encoded(picture.resize((256, 256)), "PNG"))
    low = image_part(encoded(picture.resize((256, 256)), "PNG"), detail="low")
    tokens = [
        server.chat(question(ASKED, part), max_tokens=1)["usage"]["prompt_tokens_details"]["image_tokens"]
        for part in (large, low)
    ]
    assert tokens[0] > tokens[1] == 4


def test_videos_as_addresses_data_and_frames(server, demo, picture):
    clip = DEMO / "clip.mp4"
    expected = server.text(
        question(ASKED, {"type": "video_url", "video_url": data_url(clip, "video/mp4")}), max_tokens=40
    )
    data = base64.b64encode(clip.read_bytes()).decode()
    for part in (
        {"type": "input_video", "input_video": {"data": data}},
        {"type": "input_video", "input_video": {"url": data_url(clip)}},
    ):
        assert server.text(question(ASKED, part), max_tokens=40) == expected
    frames = [encoded(picture.rotate(angle), "JPEG") for angle in (0, 90, 180)]
    url = "data:video/jpeg;base64," + ",".join(base64.b64encode(frame).decode() for frame in frames)
    sampled = mlx_smolvlm.SampledVideo([Image.open(io.BytesIO(frame)) for frame in frames], [0, 0.5, 1], 1.5)
    messages = [{"role": "user", "content": [{"type": "video", "video": sampled}, {"type": "text", "text": ASKED}]}]
    *_, last = steps = list(mlx_smolvlm.stream_generate(*demo, messages, max_tokens=40))
    fields = {"media_io_kwargs": {"video": {"fps": 2}}}
    answer = ask_about(server, url, "video", **fields).json()
    assert answer["choices"][0]["message"]["content"] == "".join(step.text for step in steps)
    assert answer["usage"]["prompt_tokens"] == last.prompt_tokens
    two = ask_about(server, url, "video", media_io_kwargs={"video": {"num_frames": 2}}).json()
    assert two["usage"]["prompt_tokens_details"]["image_tokens"] == 8


@pytest.mark.parametrize(
    "content",
    [
        b"",
        (DEMO / "clip.mp4").read_bytes()[:2000],
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        PICTURE,
    ],
)
def test_what_is_no_video_is_refused_and_leaves_no_file(server, content, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    error = refused_media(server, data_url(content, "video/mp4"), "video")
    assert error["code"] == "invalid_video" and str(tmp_path) not in error["message"]
    until(lambda: not any(tmp_path.iterdir()))


@pytest.mark.parametrize(
    ("number", "status", "told"), [(errno.ENOSPC, 500, "its log says why"), (errno.EACCES, 400, "")]
)
def test_a_full_disk_is_no_fault_of_the_request_and_no_path_is_told(server, monkeypatch, number, status, told):
    """A full disk came back as a 400, and an unreadable file with its path on this machine."""

    def fail(*_, **__):
        raise OSError(number, os.strerror(number), "/srv/secret/place.png")

    monkeypatch.setattr("mlx_smolvlm.processor.processor.Processor.open_image", fail)
    response = ask_about(server, data_url(PICTURE))
    assert response.status_code == status and told in response.text and "/srv" not in response.text


def test_files_of_videos_are_gone_after_the_answer(server, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    url = data_url(DEMO / "clip.mp4", "video/mp4")
    assert ask_about(server, url, "video").status_code == 200
    assert ask_about(server, url, "video", stream=True).status_code == 200
    until(lambda: not any(tmp_path.iterdir()))


def test_nothing_is_left_behind(server):
    def ask():
        refused_media(server, data_url(PICTURE[:-200]))
        refused_media(server, data_url((DEMO / "clip.mp4").read_bytes()[:3000], "video/mp4"), "video")
        assert ask_about(server, data_url(DEMO / "clip.mp4", "video/mp4"), "video").status_code == 200

    def open_files():
        return [name for name in held()[2] if name.startswith("/")]

    ask()
    server.wait_idle()
    before, files = threads_beside_pools(), open_files()
    for _ in range(3):
        ask()
    server.wait_idle()
    until(lambda: threads_beside_pools() <= before and not Counter(open_files()) - Counter(files))
