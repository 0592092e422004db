"""Images and videos of requests: what is read, what is refused with its place, and what is never connected to."""

import base64
import io
import os
import socket
import threading

import numpy as np
import pytest
from PIL import Image
from support.leftovers import held
from support.server import DEMO, data_url, image_part, question, running_server, until

import mlx_smolvlm

PICTURE = (DEMO / "picture.png").read_bytes()
ASKED = "What do you see?"


def encoded(image, kind, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def picture():
    with Image.open(io.BytesIO(PICTURE)) as image:
        return image.convert("RGB")


def ask_about(server, url, kind="image", **fields):
    part = {"type": f"{kind}_url", f"{kind}_url": {"url": url}}
    return server.post(question(ASKED, part), max_tokens=40, **fields)


def refused(server, url, kind="image"):
    response = ask_about(server, url, kind)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"] == "messages[0].content[0]" and error["message"].startswith("messages[0].content[0]: ")
    assert "\n" not in error["message"] and os.path.expanduser("~") not in error["message"]
    return error


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
    assert refused(server, data_url(content))["code"] == "invalid_image"


def test_images_beyond_their_bounds_are_refused(demo, picture):
    with running_server(demo, max_image_pixels=10_000, max_image_bytes=100_000, max_images=2) as server:
        assert "pixels" in refused(server, data_url(encoded(picture.resize((200, 200)), "PNG")))["message"]
        assert refused(server, data_url(b"x" * 200_000))["code"] == "invalid_image"
        assert refused(server, "data:image/png;base64,%%%")["code"] == "invalid_image"
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
    error = refused(server, data_url(content, "video/mp4"), "video")
    assert error["code"] == "invalid_video" and str(tmp_path) not in error["message"]
    until(lambda: not any(tmp_path.iterdir()))


def test_files_of_videos_are_gone_after_the_answer(server, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    url = data_url(DEMO / "clip.mp4", "video/mp4")
    assert ask_about(server, url, "video").status_code == 200
    assert ask_about(server, url, "video", stream=True).status_code == 200
    until(lambda: not any(tmp_path.iterdir()))


REFUSED_ADDRESSES = [
    "http://127.0.0.1:{port}/",
    "http://0:{port}/",
    "http://[::1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://2130706433:{port}/",
    "http://169.254.169.254/latest/",
    "http://user:pass@127.0.0.1:{port}/",
    "http://example.com:22/",
    "ftp://127.0.0.1/",
    "gopher://127.0.0.1/",
    "file:///etc/passwd",
    "~/.ssh/id_rsa",
    "/etc/passwd",
    "../x.png",
    "HTTP://LOCALHOST:{port}/",
    "http://127.1:{port}/",
    "http:///etc/passwd",
    "http:",
    "http://[",
    "file:/etc/passwd",
]


@pytest.fixture(scope="module")
def listening():
    """A port where every connection is noted."""
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        stop = threading.Event()

        def accept():
            while not stop.is_set():
                try:
                    connections.append(server.accept())
                except TimeoutError:
                    continue

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1], connections
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def fetching(demo):
    with running_server(demo, fetch_public=True, fetch_timeout_s=5) as running:
        yield running


@pytest.mark.parametrize("address", REFUSED_ADDRESSES)
def test_addresses_that_are_not_public_are_refused_and_never_connected_to(server, fetching, listening, address):
    port, connections = listening
    for each in (server, fetching):
        for kind in ("image", "video"):
            assert refused(each, address.format(port=port), kind)["code"] in ("url_not_allowed", "fetch_failed")
    assert connections == []


def test_images_and_videos_are_fetched_from_hosts_that_are_allowed(demo, files):
    address, served = files
    served |= {"/x.png": PICTURE, "/clip.mp4": (DEMO / "clip.mp4").read_bytes()}
    with running_server(demo, fetch_hosts=["127.0.0.1"]) as server:
        expected = server.text(question(ASKED, image_part(PICTURE)), max_tokens=40)
        assert ask_about(server, f"{address}/x.png").json()["choices"][0]["message"]["content"] == expected
        assert ask_about(server, f"{address}/clip.mp4", "video").status_code == 200
        for path in ("/missing.png", "/to/localhost"):
            assert refused(server, address + path)["code"] == "fetch_failed"
        assert refused(server, "http://localhost/x.png")["code"] == "url_not_allowed"


@pytest.fixture
def files():
    """A web server with files, and redirects to `localhost` from `/to/localhost`."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    served = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/to/localhost":
                self.send_response(302)
                self.send_header("Location", f"http://localhost:{self.server.server_port}/x.png")
                self.end_headers()
                return
            self.send_response(200 if self.path in served else 404)
            self.end_headers()
            self.wfile.write(served.get(self.path, b""))

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever, args=[0.05])
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}", served
        web.shutdown()
        thread.join()


def test_files_below_the_media_root_are_read_and_no_others(demo, tmp_path):
    root = tmp_path / "media"
    (root / "in ner").mkdir(parents=True)
    (root / "in ner" / "x.png").write_bytes(PICTURE)
    (root / "clip.mp4").write_bytes((DEMO / "clip.mp4").read_bytes())
    (root / "link.png").symlink_to(DEMO / "picture.png")
    (tmp_path / "secret.png").write_bytes(PICTURE)
    os.mkfifo(root / "pipe")
    with running_server(demo, media_root=str(root)) as server:
        assert ask_about(server, f"file://{root}/in%20ner/x.png").status_code == 200
        assert ask_about(server, f"file://{root}/clip.mp4", "video").status_code == 200
        for url in (
            f"file://{root}/../secret.png",
            f"file://{root}/%2e%2e/secret.png",
            f"file://{root}/link.png",
            f"file://{root}/pipe",
            f"file://{root}",
            f"file://other{root}/clip.mp4",
            f"file://{root}/none.png",
            f"file://{root}/%00",
            f"{root}/clip.mp4",
        ):
            assert refused(server, url)["code"] == "url_not_allowed", url
        broken = root / "broken.mp4"
        broken.write_bytes(b"no video")
        error = refused(server, f"file://{broken}", "video")
        assert error["code"] == "invalid_video" and str(tmp_path) not in error["message"]


def test_nothing_is_left_behind(server):
    def ask():
        refused(server, data_url(PICTURE[:-200]))
        refused(server, data_url((DEMO / "clip.mp4").read_bytes()[:3000], "video/mp4"), "video")
        assert ask_about(server, data_url(DEMO / "clip.mp4", "video/mp4"), "video").status_code == 200

    for _ in range(4):  # pools have all of their threads then
        ask()
    threads, _, files = held()
    for _ in range(3):
        ask()
    server.wait_idle()
    until(lambda: held()[0] <= threads and len(held()[2]) <= len(files), 5)
