"""Where images and videos of requests may come from, and what is never connected to or read."""

import os
import socket
import threading

import pytest
from support.server import ASKED, DEMO, ask_about, image_part, question, refused_media, running_server

PICTURE = (DEMO / "picture.png").read_bytes()
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
            assert refused_media(each, address.format(port=port), kind)["code"] in ("url_not_allowed", "fetch_failed")
    assert connections == []


def test_images_and_videos_are_fetched_from_hosts_that_are_allowed(demo, files):
    address, served = files
    served |= {"/x.png": PICTURE, "/clip.mp4": (DEMO / "clip.mp4").read_bytes()}
    with running_server(demo, fetch_hosts=["127.0.0.1"]) as server:
        expected = server.text(question(ASKED, image_part(PICTURE)), max_tokens=40)
        assert ask_about(server, f"{address}/x.png").json()["choices"][0]["message"]["content"] == expected
        assert ask_about(server, f"{address}/clip.mp4", "video").status_code == 200
        for path in ("/missing.png", "/to/localhost"):
            assert refused_media(server, address + path)["code"] == "fetch_failed"
        assert refused_media(server, "http://localhost/x.png")["code"] == "url_not_allowed"


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
            assert refused_media(server, url)["code"] == "url_not_allowed", url
        broken = root / "broken.mp4"
        broken.write_bytes(b"no video")
        error = refused_media(server, f"file://{broken}", "video")
        assert error["code"] == "invalid_video" and str(tmp_path) not in error["message"]
