"""A server on this machine that misbehaves in every way that a download must survive."""

import contextlib
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator

BODY = bytes(range(256)) * 1024  # 256 KiB, several chunks


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    plain_url = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, dict[str, str]]] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent: refused handshakes and hang-ups are part of the tests."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        with contextlib.suppress(OSError):  # the client hangs up on purpose
            getattr(self, "answer_" + self.path.strip("/").partition("?")[0].partition("/")[0])()
        self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def start(self, status: int = 200, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def answer_body(self) -> None:
        self.start(Content_Length=len(BODY))
        self.wfile.write(BODY)

    def answer_chunked(self) -> None:
        self.start(Transfer_Encoding="chunked")
        self.wfile.write(b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n")

    def answer_until_close(self) -> None:
        self.start(Connection="close")
        self.wfile.write(BODY)

    def answer_missing(self) -> None:
        self.start(404, Content_Length=0)

    def answer_login(self) -> None:
        self.start(401, Content_Length=0)

    def answer_odd_status(self) -> None:
        self.wfile.write(b"HTTP/1.1 599 \x1b[31mred\r\n\r\n")

    def answer_loop(self) -> None:
        self.start(302, Location="/loop", Content_Length=0)

    def answer_moved(self) -> None:
        self.start(301, Location="body", Content_Length=0)

    def answer_to_accents(self) -> None:
        self.wfile.write("HTTP/1.1 302 Found\r\nLocation: /body/déjà vu\r\n\r\n".encode())

    def answer_to_file(self) -> None:
        self.start(302, Location="file:///etc/passwd", Content_Length=0)

    def answer_to_http(self) -> None:
        self.start(302, Location=self.server.plain_url, Content_Length=0)

    def answer_to_secret(self) -> None:
        self.start(302, Location="/missing?token=hidden", Content_Length=0)

    def answer_huge(self) -> None:
        self.start(Content_Length=10**15)

    def answer_endless(self) -> None:
        self.start(Connection="close")
        while True:
            self.wfile.write(BODY)

    def answer_slow(self) -> None:
        self.start(Content_Length=1000)
        for _ in range(100):  # each byte comes well within the limit, all of them do not
            self.wfile.write(b"x")
            time.sleep(0.05)

    def answer_slow_header(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        for _ in range(100):
            self.wfile.write(b"x")
            time.sleep(0.05)

    def answer_cut(self) -> None:
        self.start(Content_Length=len(BODY))
        self.wfile.write(BODY[:1000])

    def answer_cut_chunk(self) -> None:
        self.start(Transfer_Encoding="chunked")
        self.wfile.write(b"ffff\r\n" + BODY[:1000])

    def answer_gzip(self) -> None:
        self.start(Content_Encoding="gzip", Content_Length=3)
        self.wfile.write(b"abc")

    def answer_garbage(self) -> None:
        self.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


@contextlib.contextmanager
def running(server: http.server.HTTPServer) -> Iterator[None]:
    """A server that answers in a thread of its own, and is closed at the end."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def serving(wrap: Callable[[socket.socket], socket.socket] = lambda plain: plain) -> Iterator[Server]:
    server = Server()
    server.socket = wrap(server.socket)
    with running(server):
        yield server
