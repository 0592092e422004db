"""Many hostile examples, in processes that are watched: one that hangs or ends is followed by another."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .run_examples import MAX_SECONDS

CHUNK = 1000  # examples for each process
HUNG_CPU_S, HUNG_S = 3 * MAX_SECONDS, 20 * MAX_SECONDS  # the process's own time, and that of a busy machine
START_S = 600
_TESTS = Path(__file__).parent.parent


def try_examples(kind: str, count: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Try the examples 0 to `count`; yields what did harm, and figures for each part.

    Args:
        kind: of `KINDS`.
        count: how many.
        folder: made if it is not there. `folder/next` holds how far an earlier run has come, `folder/log` all events.
    """
    folder.mkdir(parents=True, exist_ok=True)
    progress, log = folder / "next", folder / "log"
    first = int(progress.read_text(encoding="ascii")) if progress.exists() else 0
    while first < count:
        last = min(count, first - first % CHUNK + CHUNK)
        following, events = _run(kind, first, last, folder / "process")
        with log.open("a", encoding="utf-8") as file:
            for event in events:
                file.write(json.dumps(event) + "\n")
        yield from events
        if following <= first:
            return  # it does not even start
        first = following
        progress.write_text(str(first), encoding="ascii")


def _run(kind: str, first: int, last: int, folder: Path) -> tuple[int, list[dict[str, Any]]]:
    """Which example follows those that were tried, and what happened."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    command = [sys.executable, "-m", "fuzz.run_examples", kind, str(first), str(last), str(folder)]
    environment = {**os.environ, "PYTHONPATH": f"{_TESTS}{os.pathsep}{_TESTS.parent}", "RUST_BACKTRACE": "0"}
    environment["XDG_STATE_HOME"] = str(folder)
    number_file = folder / "number"
    with (folder / "start").open("wb") as output:
        running = subprocess.Popen(command, cwd=_TESTS, env=environment, stdout=output, stderr=output)
        number, since_s, since_cpu_s, ending = "", time.monotonic(), 0.0, "ended"
        try:
            while running.poll() is None:
                time.sleep(0.2)
                current = number_file.read_text(encoding="ascii") if number_file.exists() else ""
                now_s, now_cpu_s = time.monotonic(), _cpu_s(running.pid)
                if current != number:
                    number, since_s, since_cpu_s = current, now_s, now_cpu_s
                elif now_s - since_s > (HUNG_S if number else START_S) or (
                    number and now_cpu_s - since_cpu_s > HUNG_CPU_S
                ):
                    ending = f"hung, {now_cpu_s - since_cpu_s:.0f} s of work in {now_s - since_s:.0f} s;"
                    running.kill()
        finally:
            if running.poll() is None:
                running.kill()
                running.wait()
    events_file = folder / "events"
    lines = events_file.read_text(encoding="utf-8").splitlines() if events_file.exists() else []
    events = [json.loads(line) for line in lines]
    if events and "done" in events[-1]:
        return last, events
    said = b"".join(path.read_bytes()[-2000:] for path in (folder / "start", folder / "output") if path.exists())
    at = int(number_file.read_text(encoding="ascii") or first) if number_file.exists() else None
    what = f"{ending} with status {running.returncode}: {said.decode(errors='replace')[-2000:]}"
    return first if at is None else at + 1, [*events, {"number": at, "harm": what}]


def _cpu_s(pid: int) -> float:
    """Seconds that a process has worked; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
