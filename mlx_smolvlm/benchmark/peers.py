"""Other programs, on the same checkpoint and input, in turn with this package."""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .benchmark_run import QUESTION, BenchmarkRun
from .measurement import PeerComparison

PEERS = {"mlx-vlm": "mlx_vlm", "transformers": "transformers"}  # name -> module
_MAX_ERROR = 300  # characters of an error that are shown
_STILLS = 16  # frames that mlx-vlm shows of a video
_SHARED = {"preprocessing", "vision", "prefill", "decode"}
_PEER_CASES = {"mlx-vlm": _SHARED | {"start", "start-picture", "video", "server"}, "transformers": _SHARED}


class Worker:
    """A program in a process of its own, and its interpreter if it is another one (see worker.py)."""

    def __init__(self, program: str, run: BenchmarkRun, python: str = sys.executable):
        own = program in ("own", "video")
        self.name = program
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        command = [python, str(Path(__file__).with_name("worker.py")), program]
        self._process = subprocess.Popen(
            [*command, str(run.checkpoint), run.settings.dtype],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=run.environment if own else None,
            text=True,
        )
        try:
            self.version = str(self._answer()["version"])
        except ValueError:
            self.close()
            raise

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(self, task: str, **request: Any) -> dict[str, Any]:
        """Let it do a task.

        Raises:
            ValueError: it has ended; with the last line that it printed.
        """
        assert self._process.stdin is not None
        try:
            print(json.dumps({"task": task, **request}), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise ValueError(f"{self.name} has ended: {self._last_words()}") from None
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise ValueError(f"{self.name} has ended with status {self._process.returncode}: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        self._errors.seek(0)
        return last_error(self._errors.read())


@dataclass(frozen=True)
class _Case:
    """One request to both, and what to compare of the answers: name, unit and value."""

    section: str
    what: str
    own: dict[str, Any]
    theirs: dict[str, Any]
    values: list[tuple[str, str, Callable[[dict[str, Any]], float]]]


def check_peer(peer: str, python: str) -> None:
    """Whether an interpreter has a peer, without importing it.

    Raises:
        ValueError: it has not.
    """
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({PEERS[peer]!r}) is None)"
    try:
        found = subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0
    except OSError:
        found = False
    if not found:
        raise ValueError(f"{python} cannot import {peer}; name an interpreter that can: --peer-python {peer}=PATH")


def is_compared(peer: str, sections: list[str]) -> bool:
    """Whether there is anything in these sections that a peer can be asked."""
    return bool(_PEER_CASES[peer] & set(sections))


def compare(
    run: BenchmarkRun, peers: list[str], pythons: dict[str, str], sections: list[str]
) -> Iterator[PeerComparison]:
    """Every case of the sections, against every peer. One that fails is reported as such."""
    run.forget_model()  # two programs have one each
    for peer in peers:
        python = pythons.get(peer, sys.executable)
        wanted = [section for section in sections if section in _PEER_CASES[peer]]
        if "start" in wanted:
            yield _start(run, peer, python, [])
        if "start-picture" in wanted:
            yield _start(run, peer, python, ["--image", str(run.picture)])
        for case in (case for section in wanted for case in _cases(run, section)):
            run.progress.stage(f"{peer}: {case.section}, {case.what}")
            with Worker("own", run) as own:  # a new process for each case, for peak memory
                try:
                    other = Worker(peer, run, python)
                except ValueError as error:  # a quantized checkpoint is not for transformers
                    yield from _comparisons(case, peer, [], [], str(error))
                    continue
                with other:
                    yield from _rounds(case, own, other, run.settings.runs)


def _cases(run: BenchmarkRun, section: str) -> list[_Case]:
    """Those of one section; no input is made for the others."""
    settings = run.settings
    first_token = ("first token", "s", lambda answer: answer["first_token_s"])
    peak = ("peak memory", "MB", lambda answer: answer["peak_bytes"] / 1e6)
    rss = ("peak memory of the process", "MB", lambda answer: answer["peak_rss_bytes"] / 1e6)
    speed = ("decode", "tokens/s", lambda answer: answer["decode_tokens_per_s"])
    if section == "preprocessing":
        photo = {"task": "preprocess", "image": str(run.picture)}
        return [_Case(section, "decoded photo", photo, photo, [("tiles", "s", lambda a: a["preprocessing_s"])])]
    if section in ("prefill", "decode"):
        max_tokens, value = (1, first_token) if section == "prefill" else (settings.new_tokens, speed)
        text = {"task": "ask", "prompt": run.long_prompt, "max_tokens": max_tokens}
        return [_Case(section, "text", text, text, [value])]
    if section == "vision":
        picture = {"task": "ask", "prompt": QUESTION, "images": [str(run.picture)], "max_tokens": 1}
        return [_Case(section, "picture", picture, picture, [first_token, peak, rss])]
    if section == "video" and run.processor.config.video is not None:
        stills = {"task": "ask", "prompt": QUESTION, "video": str(run.clip), "max_tokens": 1, "max_frames": _STILLS}
        sampled = stills | {"max_frames": settings.max_frames}
        against = f"up to {settings.max_frames} frames against {_STILLS}"
        return [
            _Case(section, f"{_STILLS} frames", stills, stills, [first_token, peak]),
            _Case(section, against, sampled, stills, [first_token]),
        ]
    return []


def _rounds(case: _Case, own: Worker, other: Worker, runs: int) -> list[PeerComparison]:
    """The case in turn, after a round that does not count."""
    answers: dict[str, list[dict[str, Any]]] = {own.name: [], other.name: []}
    failure = ""
    for number in range(runs + 1):
        for worker in (own, other) if number % 2 else (other, own):
            request = case.own if worker is own else case.theirs
            try:
                answers[worker.name].append(worker.request(**request))
            except ValueError as error:
                if worker is own:
                    raise
                failure = str(error)
        if failure:
            break
    if failure:
        return _comparisons(case, other.name, [], [], failure)
    own_answers, their_answers = answers[own.name][1:], answers[other.name][1:]  # without the warm-up
    note = _note(own_answers[0], their_answers[0], f"{other.name} {other.version}")
    return _comparisons(case, other.name, own_answers, their_answers, note)


def _comparisons(
    case: _Case, peer: str, own_answers: list[dict[str, Any]], their_answers: list[dict[str, Any]], note: str
) -> list[PeerComparison]:
    return [
        PeerComparison(
            case.section,
            f"{name}, {case.what}",
            peer,
            unit,
            [value(answer) for answer in own_answers],
            [value(answer) for answer in their_answers],
            note,
        )
        for name, unit, value in case.values
        if unit != "MB" or not their_answers or value(their_answers[0])  # a program may not count its memory
    ]


def _note(own: dict[str, Any], theirs: dict[str, Any], version: str) -> str:
    """Whether both did the same."""
    if "digest" in own:
        return f"{version}, {'the same' if own['digest'] == theirs['digest'] else 'other'} pixels"
    tokens = f"{own['prompt_tokens']} and {theirs['prompt_tokens']} tokens"
    if own["prompt_tokens"] == theirs["prompt_tokens"]:
        same = [mine == other for mine, other in zip(own["token_ids"], theirs["token_ids"], strict=False)]
        agreeing = same.index(False) if False in same else len(same)
        tokens = f"{own['prompt_tokens']} tokens, the first {agreeing} of {len(same)} chosen are the same"
    return f"{version}, {tokens}"


def last_error(text: str) -> str:
    """What ended a program: the whole message of the last exception that it has printed, or the last line.

    It is one line, shortened, and without the name of the user's folder.
    """
    _, is_there, last = text.rpartition("Traceback (most recent call last):")
    error = re.search(r"^[A-Za-z_][\w.]*(?::.*)?$", last, re.MULTILINE) if is_there else None
    words = last[error.start() :] if error else (text.strip() or "without a word").splitlines()[-1]
    line = " ".join(words.split()).replace(str(Path.home()), "~")
    return line if len(line) <= _MAX_ERROR else f"{line[: _MAX_ERROR - 4]} ..."


def _start(run: BenchmarkRun, peer: str, python: str, options: list[str]) -> PeerComparison:
    """Both commands, from start to end, for one token."""
    case = "picture" if options else "text"
    run.progress.stage(f"{peer}: command, {case}")
    own = [sys.executable, "-m", "mlx_smolvlm.generate", "--dtype", run.settings.dtype]
    theirs = [python, "-m", "mlx_vlm", "generate"]
    shared = ["--model", str(run.checkpoint), "--prompt", QUESTION, "--max-tokens", "1", *options]
    own_s: list[float] = []
    their_s: list[float] = []
    turns = [(own, own_s, run.environment), (theirs, their_s, None)]
    failure = ""
    for _ in range(run.settings.runs + 1):
        for command, spent, environment in turns:
            start = time.perf_counter()
            done = subprocess.run([*command, *shared], env=environment, capture_output=True, text=True, check=False)
            spent.append(time.perf_counter() - start)
            if done.returncode:
                failure = f"{'mlx-smolvlm' if command is own else peer}: {last_error(done.stderr)}"
        if failure:
            break
        turns.reverse()
    own_s, their_s = ([], []) if failure else (own_s[1:], their_s[1:])  # the first reads files into memory
    note = failure or f"{run.settings.dtype} against the type of the files"
    return PeerComparison("start", f"command for one token, {case}", peer, "s", own_s, their_s, note)
