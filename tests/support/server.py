"""The server as tests run it: in a thread of this process, on a free port, with a model that is loaded already."""

import base64
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import uvicorn

from mlx_smolvlm.server.app import create_app
from mlx_smolvlm.server.engine_thread import Engine
from mlx_smolvlm.server.http.protocol import guarded_protocol
from mlx_smolvlm.server.running import listening_socket
from mlx_smolvlm.server.settings import ServerSettings
from support.patience import PATIENCE_S, until

DEMO = Path(__file__).parents[2] / "mlx_smolvlm" / "demo"
ASKED = "What do you see?"


class TestServer:
    """A running server.

    Attributes:
        url: its address, without a slash at the end.
        engine: its engine.
        http: a client with that address.
    """

    __test__ = False

    def __init__(self, url: str, engine: Engine, http: httpx.Client):
        self.url, self.engine, self.http = url, engine, http

    def chat(self, messages, **fields) -> dict:
        """The answer to messages, or to a question."""
        response = self.post(messages, **fields)
        assert response.status_code == 200, response.text
        return response.json()

    def post(self, messages, path="/v1/chat/completions", **fields) -> httpx.Response:
        """The response to messages, or to a question."""
        messages = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        return self.http.post(path, json={"messages": messages, **fields})

    def text(self, messages, **fields) -> str:
        """The text of the answer."""
        return self.chat(messages, **fields)["choices"][0]["message"]["content"]

    def chunks(self, messages, **fields) -> list[dict]:
        """The chunks of a streamed answer, which has to end as it should."""
        response = self.post(messages, stream=True, **fields)
        assert response.status_code == 200, response.text
        return read_events(response.text)

    def wait_idle(self) -> None:
        """Wait until nothing is in flight."""
        until(lambda: self.engine.is_idle and not self.engine.num_waiting)


def read_events(text: str) -> list[dict]:
    """The data of server-sent events, of which the last is `[DONE]`."""
    events = [event for event in text.split("\n\n") if event and not event.startswith(":")]
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    assert events[-1] == "data: [DONE]" and events.count("data: [DONE]") == 1
    return [json.loads(event.removeprefix("data: ")) for event in events[:-1]]


@contextlib.contextmanager
def running_server(pair, **settings) -> Iterator[TestServer]:
    """A server that answers with a model and its processor, or with what a function of no arguments returns."""
    chosen = ServerSettings(port=0, **settings)
    engine = Engine(chosen, pair if callable(pair) else lambda: pair)
    listening = listening_socket(chosen.host, 0)
    config = uvicorn.Config(
        create_app(chosen, engine), http=guarded_protocol(chosen), ws="none", log_config=None, lifespan="on"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=[[listening]])
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    engine.start()
    thread.start()
    try:
        if not callable(pair):
            until(engine.ready.is_set)
        until(lambda: server.started)
        headers = {"authorization": f"Bearer {chosen.api_key}"} if chosen.api_key else {}
        with httpx.Client(base_url=url, timeout=PATIENCE_S, headers=headers, trust_env=False) as client:
            yield TestServer(url, engine, client)
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        assert engine.stop()
        assert not thread.is_alive()


def data_url(content: bytes | Path, media_type: str = "image/png") -> str:
    """A data URL."""
    content = content.read_bytes() if isinstance(content, Path) else content
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def image_part(content: bytes | Path, **more) -> dict:
    """An image as OpenAI's clients send it."""
    return {"type": "image_url", "image_url": {"url": data_url(content), **more}}


def question(text: str, *parts: dict) -> list[dict]:
    """A message of media and a question."""
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def ask_about(server, url, kind="image", **fields) -> httpx.Response:
    """The response to a question about an image or a video."""
    part = {"type": f"{kind}_url", f"{kind}_url": {"url": url}}
    return server.post(question(ASKED, part), max_tokens=40, **fields)


def refused_media(server, url, kind="image") -> dict:
    """The error for an image or a video that is not taken."""
    response = ask_about(server, url, kind)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"] == "messages[0].content[0]" and error["message"].startswith("messages[0].content[0]: ")
    assert "\n" not in error["message"] and os.path.expanduser("~") not in error["message"]
    return error


class ServerProcess:
    """A server in a process of its own.

    Attributes:
        url: its address, without a slash at the end.
    """

    def __init__(self, *arguments, **environment):
        self.started_s = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlx_smolvlm.server", "--port", "0", *arguments],
            cwd=DEMO.parents[1], env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        first = self.process.stderr.readline()
        self.url = re.search(r"http://\S+", first)[0].rstrip("/")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def is_ready(self) -> bool:
        """Whether it answers questions."""
        return httpx.get(f"{self.url}/health", trust_env=False).status_code == 200

    def stop(self, number):
        """Exit status and what was printed after a signal, and that the port is free at once."""
        self.process.send_signal(number)
        _, printed = self.process.communicate(timeout=20)
        with socket.create_server(("127.0.0.1", int(self.url.rpartition(":")[2])), reuse_port=False):
            pass
        return self.process.returncode, printed
