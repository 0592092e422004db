"""Try hostile examples of one kind in this process: `python -m fuzz.run_examples KIND FIRST LAST FOLDER`.

What happens is written to FOLDER/events, a line of JSON each, and FOLDER/number says which example is being tried, so
that whoever waits knows which one takes too long or ends the process. Memory is limited by the system.
"""

import contextlib
import json
import os
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from fuzz.kinds import Workplace

MAX_SECONDS = 20.0
MAX_BYTES = 2 * 1024**3  # beside what the process has at the start
WORDS_OF_HARM = (b"Traceback", b"not foreseen", b"Exception ignored")
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def main() -> None:
    """Try them all; what did harm stands in FOLDER/events."""
    kind, first, last, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    warnings.simplefilter("ignore")
    (folder / "place").mkdir()
    place = Workplace(folder / "place")
    place.example(kind, first)  # makes its seeds
    with contextlib.suppress(OSError, IndexError):  # Linux
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MAX_BYTES, used + MAX_BYTES))
    printed = _caught_output(folder / "output")
    with (folder / "events").open("a", encoding="utf-8", buffering=1) as events:

        def note(**event: Any) -> None:
            events.write(json.dumps(event) + "\n")

        slowest, largest = (0.0, first), (0, first)
        for number in range(first, last):
            (folder / "number").write_text(str(number), encoding="ascii")
            example = place.example(kind, number)
            before = _peak_bytes(reset=True)
            start_s, start_cpu_s = time.monotonic(), time.process_time()
            try:
                place.attempt(kind, example)
            except BaseException:
                note(number=number, harm=traceback.format_exc(limit=-4)[-2000:])
            # On a busy machine time passes without work, and with several threads there is more work than time.
            seconds = min(time.monotonic() - start_s, time.process_time() - start_cpu_s)
            used = _peak_bytes() - before
            slowest, largest = max(slowest, (seconds, number)), max(largest, (used, number))
            said = printed()
            if any(word in said for word in WORDS_OF_HARM):
                note(number=number, harm=said.decode(errors="replace")[-2000:])
            if seconds > MAX_SECONDS or used > MAX_BYTES:
                note(number=number, harm=f"{seconds:.1f} s, {used / 1024**2:.0f} MiB")
        note(done=last, slowest_s=round(slowest[0], 2), slowest=slowest[1], peak_mib=largest[0] >> 20, peak=largest[1])


def _peak_bytes(*, reset: bool = False) -> int:
    """The most memory that this process has had at once, or has now; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        if reset:
            _RESET.write_text("5", encoding="ascii")
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _caught_output(path: Path) -> Any:
    """Let all that this process prints go to a file; a function that returns what is new in it."""
    file = path.open("wb+")
    for descriptor in (1, 2):
        os.dup2(file.fileno(), descriptor)

    def new() -> bytes:
        sys.stdout.flush()
        sys.stderr.flush()
        said = os.pread(file.fileno(), 1 << 20, 0)
        os.ftruncate(file.fileno(), 0)
        os.lseek(file.fileno(), 0, os.SEEK_SET)  # it is one for all three descriptors
        return said

    return new


if __name__ == "__main__":
    main()
