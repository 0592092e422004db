"""Programs that drive an `Engine`, in this process or in a helper."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np

from support.layout import ROOT

LONGEST_S = 60


class Program:
    """Asks, and collects the events of each request."""

    def __init__(self, engine: Any):
        self.engine = engine
        self._numbers = count(1)
        self.others: list[dict[str, Any]] = []  # events of other requests, in order

    def send(self, request: str, *attachments: bytes, **fields: Any) -> int:
        number = fields.pop("id", None) or next(self._numbers)
        self.engine.submit(json.dumps({"request": request, "id": number, **fields}), list(attachments))
        return number

    def next_event(self) -> dict[str, Any]:
        event = self.engine.step(LONGEST_S)
        assert event is not None, "nothing happened"
        return json.loads(event)

    def events(self, number: int | None) -> list[dict[str, Any]]:
        """The events of a request, to its last one."""
        found = [event for event in self.others if event["id"] == number]
        self.others = [event for event in self.others if event["id"] != number]
        while not found or found[-1]["event"] not in ("ready", "loaded", "end", "error"):
            event = self.next_event()
            (found if event["id"] == number else self.others).append(event)
        return found

    def ask(self, request: str, *attachments: bytes, **fields: Any) -> list[dict[str, Any]]:
        return self.events(self.send(request, *attachments, **fields))

    def error(self, request: str, *attachments: bytes, **fields: Any) -> tuple[str, str]:
        """Kind and message of the one event that a request ends with."""
        (event,) = self.ask(request, *attachments, **fields)
        assert event["event"] == "error" and event["message"].isprintable(), event
        return event["kind"], event["message"]


def text_of(events: list[dict[str, Any]]) -> str:
    assert events[-1]["event"] == "end", events[-1]
    return "".join(event["text"] for event in events if event["event"] == "token")


def ids_of(events: list[dict[str, Any]]) -> list[int]:
    return [event["token_id"] for event in events if event["event"] == "token"]


def answer_of(events: list[dict[str, Any]]) -> tuple[str, list[int]]:
    return text_of(events), ids_of(events)


def bgra(pixels: np.ndarray, padding: int) -> tuple[bytes, dict[str, Any]]:
    """An RGB image as a camera would hand it over, and the fields that describe it."""
    height, width = pixels.shape[:2]
    rows = np.full((height, 4 * width + padding), 77, np.uint8)
    rows[:, : 4 * width] = np.dstack([pixels[..., ::-1], np.full((height, width), 255, np.uint8)]).reshape(height, -1)
    return rows.tobytes(), {"width": width, "height": height, "bytes_per_row": 4 * width + padding, "format": "bgra"}


class Helper:
    """A helper process as a program sees it."""

    def __init__(self, process: subprocess.Popen[bytes], ours: socket.socket):
        self.process = process
        self.socket = ours
        self.file = ours.makefile("rb")
        self._events: list[str] = []

    def submit(self, message: str, attachments: list[bytes]) -> None:
        value = json.loads(message)
        if attachments:
            value["attachments"] = [len(data) for data in attachments]
        self.socket.sendall(json.dumps(value).encode() + b"\n" + b"".join(attachments))

    def step(self, wait_seconds: float) -> str | None:
        self.socket.settimeout(wait_seconds)
        return self.file.readline().decode() or None

    def ended(self, within_s: float) -> int:
        """Its exit status."""
        began_s = time.monotonic()
        status = self.process.wait(LONGEST_S)
        assert time.monotonic() - began_s < within_s
        return status


@contextmanager
def helper(code: str = "") -> Iterator[Helper]:
    """A helper process; `code` runs in it before anything else."""
    run = f"import sys, runpy; sys.path.insert(0, {str(ROOT)!r}); {code}\n"
    run += "runpy.run_module('mlx_smolvlm.bridge', run_name='__main__')"
    ours, theirs = socket.socketpair()
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", run], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=environment
        )
        theirs.close()
        seen = Helper(process, ours)
        try:
            yield seen
        finally:
            seen.file.close()
            ours.close()
            process.kill()
            process.wait()
            assert process.stderr is not None
            process.stderr.close()
