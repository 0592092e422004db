"""Hostile examples of everything that strangers hand in: refused in one short line, in time and within memory.

A few of each kind always; `--slow` tries 10,000 of each, in processes of their own with limits. What once did harm lies
in `found/KIND/` and is tried each time.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .kinds import KINDS, Workplace

FOUND = Path(__file__).parent / "found"
QUICK, SLOW, CHUNK = 25, 10_000, 500
MAX_SECONDS = 20.0


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Workplace(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.filterwarnings("ignore")  # libraries warn of damage in their own words
@pytest.mark.parametrize("kind", KINDS)
def test_a_few_examples_are_read_or_refused(place, kind: str) -> None:
    for number in range(QUICK):
        start = time.monotonic()
        place.attempt(kind, place.example(kind, number))
        assert time.monotonic() - start < MAX_SECONDS, number


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", sorted(FOUND.glob("*/*")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_once_did_harm_does_none(place, path: Path) -> None:
    start = time.monotonic()
    place.attempt(path.parent.name, path.read_bytes())
    assert time.monotonic() - start < MAX_SECONDS


def test_examples_are_the_same_each_time(place) -> None:
    for kind in KINDS:
        examples = [place.example(kind, number) for number in range(20)]
        assert examples == [place.example(kind, number) for number in range(20)]
        assert len(set(examples)) > 10


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_10000_examples_are_read_or_refused(tmp_path: Path, kind: str) -> None:
    for first in range(0, SLOW, CHUNK):
        folder = tmp_path / str(first)
        folder.mkdir()
        command = [sys.executable, "-m", "fuzz.run_examples", kind, str(first), str(first + CHUNK), str(folder)]
        tests = Path(__file__).parent.parent
        environment = {**os.environ, "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}", "RUST_BACKTRACE": "0"}
        log = folder / "log"
        with log.open("wb") as output:
            running = subprocess.Popen(command, cwd=tests, env=environment, stdout=output, stderr=output)
            number, since_s = "none yet", time.monotonic()
            while running.poll() is None:
                time.sleep(0.1)
                current = (folder / "number").read_text(encoding="ascii") if (folder / "number").exists() else ""
                if current != number:
                    number, since_s = current, time.monotonic()
                elif time.monotonic() - since_s > 2 * MAX_SECONDS:  # the first start takes its time, too
                    running.kill()
        report = log.read_text(encoding="utf-8", errors="replace")[-3000:]
        assert running.returncode == 0, f"{kind} {number} ended with {running.returncode}:\n{report}"
