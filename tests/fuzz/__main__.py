"""Try many hostile examples: `PYTHONPATH=.:tests python -m fuzz [KIND ...] [--count 10000] [--folder FOLDER]`.

The numbers of the examples are their seeds: an example is made again from its kind and number. A run that was
interrupted goes on where it was when it is started again with the same folder.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from .kinds import KINDS
from .long_run import try_examples


def main() -> None:
    """Print what did harm, and the figures of each kind; exits with 1 if anything did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=KINDS, metavar="KIND", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--count", type=int, default=10_000, help="examples of each kind")
    parser.add_argument("--folder", type=Path, help="where to keep what was done and what did harm")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="fuzz-"))
    is_harmful = False
    for kind in arguments.kinds or KINDS:
        print(f"{kind}: examples 0 to {arguments.count - 1}, in {folder / kind}", flush=True)
        for event in try_examples(kind, arguments.count, folder / kind):
            is_harmful |= "harm" in event
            print(f"{kind}: {event}", flush=True)
    sys.exit(is_harmful)


if __name__ == "__main__":
    main()
