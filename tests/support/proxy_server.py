"""A small HTTP proxy, which takes every name for this machine."""

import contextlib
import http.server
import select
import socket
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

from .http_server import running


class Proxy(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, str | None]] = []  # method, target, Proxy-Authorization
        self.refuses = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent: hang-ups are part of the tests."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Proxy

    def do_GET(self) -> None:
        self.server.asked.append(("GET", self.path, self.headers["Proxy-Authorization"]))
        parts = urlsplit(self.path)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{parts.port}{parts.path}") as answer:
            body = answer.read()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def do_CONNECT(self) -> None:
        self.server.asked.append(("CONNECT", self.path, self.headers["Proxy-Authorization"]))
        if self.server.refuses:
            self.send_error(403)
            return
        self.send_response(200)
        self.end_headers()
        with socket.socket() as other:
            other.connect(("127.0.0.1", int(self.path.rpartition(":")[2])))
            ends = {self.connection: other, other: self.connection}
            while True:
                for ready in select.select(list(ends), [], [], 5)[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    ends[ready].sendall(data)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def proxying() -> Iterator[Proxy]:
    server = Proxy()
    with running(server):
        yield server
