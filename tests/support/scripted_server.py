"""The page with answers that a test writes: for what the demo model is too quick, too tame or too reliable."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mlx_smolvlm.server.page import page_routes
from mlx_smolvlm.server.running import listening_socket
from mlx_smolvlm.server.settings import ServerSettings

from .server import until

Script = Callable[[dict[str, Any]], "AsyncIterator[str] | Response"]


class ScriptedServer:
    """A server without a model.

    Attributes:
        url: its address, without a slash at the end.
        script: from the body of a chat request to pieces of text, or to a whole response. Raising cuts the stream.
        bodies: of the chat requests so far.
        status: what `/health` says.
        models: ids of the models.
        api_key: what requests must bring, if any.
        num_in_flight, most_in_flight, num_left: chat requests now, at most at a time, and left by the client.
    """

    def __init__(self) -> None:
        self.url = ""
        self.script: Script = lambda body: words("Yes.")
        self.bodies: list[dict[str, Any]] = []
        self.status = "ok"
        self.models = ["scripted/Model-500M"]
        self.api_key: str | None = None
        self.num_in_flight = self.most_in_flight = self.num_left = 0
        self.app = Starlette(
            routes=[
                *page_routes(),
                Route("/health", self._health),
                Route("/v1/models", self._models),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
            ]
        )
        self.app.state.settings = ServerSettings(model="scripted/Model-500M")

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": self.status}, 200 if self.status == "ok" else 503)

    async def _models(self, request: Request) -> Response:
        if self._lacks_key(request):
            return failed(401, "invalid_api_key", "the API key is wrong")
        return JSONResponse({"object": "list", "data": [{"id": name, "max_model_len": 8192} for name in self.models]})

    async def _chat(self, request: Request) -> Response:
        if self._lacks_key(request):
            return failed(401, "invalid_api_key", "the API key is wrong")
        body = await request.json()
        self.bodies.append(body)
        answer = self.script(body)
        if isinstance(answer, Response):
            return answer
        return StreamingResponse(self._followed(answer), media_type="text/event-stream")

    async def _followed(self, pieces: AsyncIterator[str]) -> AsyncIterator[str]:
        self.num_in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.num_in_flight)
        try:
            number = 0
            yield _chunk(delta={"role": "assistant", "content": ""})
            async for piece in pieces:
                number += 1
                yield piece if piece.startswith(("data:", ":")) else _chunk(delta={"content": piece})
            yield _chunk(delta={}, finish_reason="stop")
            details = {"cached_tokens": 120, "image_tokens": 81}
            usage = {"prompt_tokens": 212, "completion_tokens": number, "prompt_tokens_details": details}
            yield _event({"choices": [], "usage": usage})
            yield "data: [DONE]\n\n"
        except asyncio.CancelledError:
            self.num_left += 1
            raise
        finally:
            self.num_in_flight -= 1

    def _lacks_key(self, request: Request) -> bool:
        return self.api_key is not None and request.headers.get("authorization") != f"Bearer {self.api_key}"


async def words(text: str, pause_s: float = 0.0) -> AsyncIterator[str]:
    """The words of a text, one at a time."""
    for number, word in enumerate(text.split(" ")):
        await asyncio.sleep(pause_s)
        yield word if number == 0 else f" {word}"


async def cut(text: str) -> AsyncIterator[str]:
    """The words of a text, and then the connection breaks."""
    async for word in words(text):
        yield word
    raise ConnectionResetError("as the test wants it")


def failed(status: int, code: str, message: str, **headers: str) -> Response:
    """An error in OpenAI's form."""
    return JSONResponse({"error": {"message": message, "type": "", "param": None, "code": code}}, status, headers)


def error_event(code: str, message: str) -> str:
    """An error within a stream."""
    return _event({"error": {"message": message, "type": "", "param": None, "code": code}})


@contextlib.contextmanager
def scripted_server() -> Iterator[ScriptedServer]:
    """A running one."""
    scripted = ScriptedServer()
    listening = listening_socket("127.0.0.1", 0)
    config = uvicorn.Config(scripted.app, ws="none", log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=[[listening]])
    scripted.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    thread.start()
    try:
        until(lambda: server.started)
        yield scripted
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


def _chunk(**choice: Any) -> str:
    return _event({"model": "scripted", "choices": [{"index": 0, **choice}]})


def _event(data: Any) -> str:
    return f"data: {json.dumps(data)}\n\n"
