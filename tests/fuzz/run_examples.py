"""Try many hostile examples of one kind in this process: `python -m fuzz.run_examples KIND FIRST LAST FOLDER`.

The number of each is written to FOLDER/number before it is tried, so that whoever waits knows which one takes too long
or ends the process. Memory is limited by the system.
"""

import contextlib
import resource
import sys
import traceback
import warnings
from pathlib import Path

from fuzz.kinds import Workplace

MAX_BYTES = 2 * 1024**3  # beside what the process has at the start


def main() -> None:
    """Exits with 1 and the numbers of the examples that did harm."""
    kind, first, last, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    warnings.simplefilter("ignore")
    place = Workplace(folder)
    with contextlib.suppress(OSError, IndexError):  # Linux
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MAX_BYTES, used + MAX_BYTES))
    harmful = []
    for number in range(first, last):
        (folder / "number").write_text(str(number), encoding="ascii")
        try:
            place.attempt(kind, place.example(kind, number))
        except BaseException:
            harmful.append(number)
            traceback.print_exc(limit=-3)
    if harmful:
        sys.exit(f"{kind}: {harmful}")


if __name__ == "__main__":
    main()
