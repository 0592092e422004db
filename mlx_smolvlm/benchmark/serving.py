"""Servers under load: many clients at once, each streaming an answer. Beside mlx-vlm's server where it is asked for."""

import base64
import http.client
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from .benchmark_run import QUESTION, BenchmarkRun
from .generated_inputs import write_picture
from .measurement import Measurement, PeerComparison
from .peers import last_error

START_S = 300.0  # a checkpoint may take long to load
REQUEST_S = 600.0
LATER_S = 2.0  # after which the short question follows the picture, when it is decoded and being read
KINDS = ("text", "picture", "text beside a picture")


@dataclass(frozen=True)
class Answered:
    """One streamed answer: its text, seconds to the first of it, the longest wait between two texts, and for all."""

    text: str
    first_s: float
    gap_s: float
    total_s: float


class ServerUnderTest:
    """A server in a process of its own, which is ended with the `with` block.

    Raises:
        ValueError: it does not come up; with its last words.
    """

    def __init__(self, run: BenchmarkRun, python: str = sys.executable, *, is_own: bool = True):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._model = str(run.checkpoint)
        self._is_own = is_own
        module = "mlx_smolvlm.server" if is_own else "mlx_vlm.server"
        command = [python, "-m", module, "--model", self._model, "--host", "127.0.0.1", "--port", str(self._port)]
        if is_own:
            most = str(max([*run.settings.clients, 8]))
            command += ["--dtype", run.settings.dtype, "--log-level", "warning", "--max-waiting", most]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        environment = run.environment if is_own else None
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._errors, stderr=self._errors, env=environment
        )
        try:
            self._wait_ready()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "ServerUnderTest":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def ask(self, content: Any, max_tokens: int) -> Answered:
        """Stream one answer.

        Raises:
            ValueError: the server refuses, or its stream ends early.
        """
        body: dict[str, Any] = {"messages": [{"role": "user", "content": content}], "max_tokens": max_tokens}
        body |= {"stream": True, "temperature": 0}
        if not self._is_own:
            body["model"] = self._model
        start = time.perf_counter()
        texts: list[str] = []
        times: list[float] = []
        is_whole = False
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=REQUEST_S)
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            if response.status != http.HTTPStatus.OK:
                raise ValueError(f"the server answered {response.status}: {response.read(200)!r}")
            while line := response.readline():
                if line.strip() == b"data: [DONE]":
                    is_whole = True
                elif line.startswith(b"data: ") and (text := _text(json.loads(line[6:]))):
                    times.append(time.perf_counter())
                    texts.append(text)
        except (OSError, http.client.HTTPException) as error:
            raise ValueError(f"the server broke off: {error}") from None
        finally:
            connection.close()
        if not is_whole or not times:
            raise ValueError("the server's stream ended early")
        gaps = [later - earlier for earlier, later in pairwise(times)]
        return Answered("".join(texts), times[0] - start, max(gaps, default=0.0), time.perf_counter() - start)

    def _wait_ready(self) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            if self._process.poll() is not None:
                self._errors.seek(0)
                raise ValueError(f"the server has ended: {last_error(self._errors.read())}")
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
            try:
                connection.request("GET", "/health")
                if connection.getresponse().status == http.HTTPStatus.OK:
                    return
            except OSError:  # not listening yet
                pass
            finally:
                connection.close()
            time.sleep(0.1)
        raise ValueError(f"the server did not come up within {START_S:g} s")


def serving(run: BenchmarkRun) -> Iterator[Measurement]:
    """Time to the first text, longest gap, and answers a second, for each number of clients."""
    load = _Load(run)
    with ServerUnderTest(run) as server:
        for kind in KINDS[:2]:
            load.burst(server, load.questions(kind, 1))  # does not count
        for kind in KINDS:
            for clients in run.settings.clients if kind != KINDS[2] else [1]:
                run.progress.stage(f"server: {kind}, {clients} clients")
                number = -(-run.settings.runs // clients)
                rounds = [load.burst(server, load.questions(kind, clients)) for _ in range(number)]
                answers = [answer for answered, _ in rounds for answer in answered]
                name = f"{kind}, {clients} client{'s' * (clients > 1)}"
                note = f"{run.settings.new_tokens} tokens each"
                rates = [len(answered) / seconds for answered, seconds in rounds]
                yield Measurement("server", f"{name}: first text", "s", [a.first_s for a in answers], note)
                yield Measurement("server", f"{name}: longest gap", "s", [a.gap_s for a in answers], note)
                if kind != KINDS[2]:  # where the time for all is that of the picture
                    yield Measurement("server", f"{name}: answers", "requests/s", rates, note)


def compare_servers(run: BenchmarkRun, peer: str, python: str) -> Iterator[PeerComparison]:
    """The same questions to both servers, in turn; one that fails is reported as such."""
    load = _Load(run)
    try:
        with ServerUnderTest(run) as own, ServerUnderTest(run, python, is_own=False) as other:
            for kind in KINDS:
                for clients in run.settings.clients if kind != KINDS[2] else [1]:
                    run.progress.stage(f"{peer}: server, {kind}, {clients} clients")
                    asked = [load.questions(kind, clients) for _ in range(run.settings.runs + 1)]
                    rounds = [[load.burst(server, questions) for server in (own, other)] for questions in asked][1:]
                    name = f"{kind}, {clients} client{'s' * (clients > 1)}"
                    firsts = [[_first(answered) for answered, _ in both] for both in rounds]
                    rates = [[len(answered) / seconds for answered, seconds in both] for both in rounds]
                    compared = [("first text", "s", firsts), ("answers", "requests/s", rates)]
                    for what, unit, values in compared[: 1 if kind == KINDS[2] else 2]:
                        mine, theirs = (list(side) for side in zip(*values, strict=True))
                        yield PeerComparison("server", f"{what}, {name}", peer, unit, mine, theirs, _agreement(rounds))
    except ValueError as error:
        yield PeerComparison("server", "server", peer, "s", [], [], str(error))


@dataclass(frozen=True)
class _Questions:
    """Contents of messages that are asked at once, and of those that are asked a little before them."""

    contents: list[Any]
    before: list[Any] = field(default_factory=list)


class _Load:
    """Questions that no server has seen, so that what is kept of earlier ones is of no help."""

    def __init__(self, run: BenchmarkRun):
        self._run = run
        self._number = 0

    def questions(self, kind: str, clients: int) -> "_Questions":
        """What so many clients ask at once."""
        if kind == KINDS[2]:
            return _Questions([self._content("text")], [self._content("picture") for _ in range(clients)])
        return _Questions([self._content(kind) for _ in range(clients)])

    def burst(self, server: ServerUnderTest, questions: "_Questions") -> tuple[list[Answered], float]:
        """Answers to the questions, and seconds for all. Raises what `ask` raises."""
        tokens = self._run.settings.new_tokens
        contents = [*questions.before, *questions.contents]
        answers: dict[int, Answered] = {}
        failures: list[ValueError] = []

        def ask(number: int) -> None:
            try:
                answers[number] = server.ask(contents[number], tokens)
            except ValueError as error:
                failures.append(error)

        threads = [threading.Thread(target=ask, args=[number]) for number in range(len(contents))]
        start = time.perf_counter()
        for number, thread in enumerate(threads):
            if number == len(questions.before) > 0:
                time.sleep(LATER_S)
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - start
        if failures:
            raise failures[0]
        return [answers[number] for number in range(len(questions.before), len(contents))], seconds

    def _content(self, kind: str) -> Any:
        self._number += 1
        if kind == "text":
            return f"{self._number}. {QUESTION}"
        photo = write_picture(self._run.folder / "asked.jpg", self._run.settings.image_size, 1000 + self._number)
        data = base64.b64encode(photo.read_bytes()).decode()
        image = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}}
        return [image, {"type": "text", "text": QUESTION}]


def _first(answers: list[Answered]) -> float:
    return statistics.median(answer.first_s for answer in answers)


def _agreement(rounds: list[list[tuple[list[Answered], float]]]) -> str:
    """How many answers of both servers are the same."""
    pairs = [pair for (own, _), (theirs, _) in rounds for pair in zip(own, theirs, strict=True)]
    same = sum(own.text.strip() == theirs.text.strip() for own, theirs in pairs)  # mlx-vlm's streams keep a first space
    return "the same answers" if same == len(pairs) else f"{same} of {len(pairs)} answers are the same"


def _text(chunk: dict[str, Any]) -> str:
    """What a chunk adds to the answer."""
    if "error" in chunk:
        raise ValueError(f"the server failed: {chunk['error']}")
    return "".join((choice.get("delta") or {}).get("content") or "" for choice in chunk.get("choices", ()))
