"""A small app behind the server's guards and protocol, served on a port of this machine; no model."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from mlx_smolvlm.server.http.guards import middleware
from mlx_smolvlm.server.http.protocol import guarded_protocol
from mlx_smolvlm.server.http.strict_json import read_body
from mlx_smolvlm.server.settings import ServerSettings


async def echo(request: Request):
    request.app.state.calls.append(request.state.request_id)
    return JSONResponse(await read_body(request, dict))


async def health(request: Request):
    return JSONResponse({"status": "ok"})


async def fail(request: Request):
    raise RuntimeError("a bug")


async def wait(request: Request):
    """Answers when the client has left, to nobody; notes when that was."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    request.app.state.calls.append("left")
    return JSONResponse({})


async def pour(request: Request):
    """Sends without end; with `fail`, two parts and then a bug."""

    async def parts():
        try:
            for _ in range(2 if "fail" in request.query_params else 1_000_000):
                yield b"x" * 65536
                await asyncio.sleep(0)  # to see that the client has left
            raise RuntimeError("a bug in the middle")
        finally:
            request.app.state.calls.append("ended")

    return StreamingResponse(parts(), media_type="text/event-stream")


ROUTES = [
    Route("/health", health),
    Route("/models", health),
    Route("/echo", echo, methods=["POST"]),
    Route("/models", echo, methods=["POST"]),
    Route("/fail", fail),
    Route("/pour", pour),
    Route("/wait", wait),
]


def guarded_app(settings: ServerSettings) -> Starlette:
    app = Starlette(routes=ROUTES, middleware=middleware(settings, ROUTES, ["/health"]))
    app.state.settings, app.state.calls = settings, []
    return app


@contextlib.contextmanager
def serve(**settings: object) -> Iterator[tuple[int, list[str]]]:
    """A running server's port, and the calls that reached its handlers."""
    chosen = ServerSettings(port=0, **settings)
    app = guarded_app(chosen)
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=guarded_protocol(chosen),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
    thread.start()
    try:
        yield listening.getsockname()[1], app.state.calls
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()
        assert not thread.is_alive()


class Client:
    """A connection that sends exactly what it is told to."""

    def __init__(self, port: int):
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.received = b""

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(self, line: str, *headers: str, body: bytes = b"", host: bool = True) -> "Answer":
        named = [f"Host: localhost:{self.port}"] if host else []
        length = [f"Content-Length: {len(body)}"] if body else []
        self.send("\r\n".join([f"{line} HTTP/1.1", *named, *length, *headers, "", ""]).encode("latin-1") + body)
        return self.answer(has_body=not line.startswith("HEAD"))

    def answer(self, has_body: bool = True) -> "Answer":
        """One response with a content length."""
        while b"\r\n\r\n" not in self.received:
            self.received += self._more()
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        answer = Answer(head)
        length = int(answer.headers.get("content-length", 0)) if has_body else 0
        while len(self.received) < length:
            self.received += self._more()
        answer.body, self.received = self.received[:length], self.received[length:]
        return answer

    def _more(self) -> bytes:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("closed")
        return data

    def seconds_until_closed(self) -> float:
        """How long the server takes to close the connection; what it still sends is dropped."""
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while self.socket.recv(1 << 20):
                pass
        return time.monotonic() - started


class Answer:
    def __init__(self, head: bytes):
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1])
        self.headers = dict(line.lower().split(": ", 1) for line in lines)
        self.body = b""

    @property
    def error(self) -> dict[str, object]:
        return json.loads(self.body)["error"]
