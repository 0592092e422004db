"""The mini suite on the command line: `evaluate mini`, its size and where it is written."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from .mini_suite import BASIC, CATEGORIES, MINI, MiniSuite, mini_suite_at, read_categories, write_mini_suite

_DEFAULTS = MiniSuite()


def add_mini_arguments(parser: argparse.ArgumentParser) -> None:
    """Add its options."""
    group = parser.add_argument_group("mini suite", f"DATA {MINI}: a benchmark made from a seed, without a download")
    group.add_argument("--mini-rows", type=int, metavar="N", help=f"its rows (default: {_DEFAULTS.num_rows})")
    group.add_argument("--mini-seed", type=int, metavar="S", help=f"its seed (default: {_DEFAULTS.seed})")
    group.add_argument(
        "--mini-categories",
        metavar="NAMES",
        help=f"which of {', '.join(CATEGORIES)}, comma-separated; {BASIC} for the first eight, which the demo model "
        "knows (default: all)",
    )
    group.add_argument("--make", type=Path, metavar="DIR", help="only write it into a new folder DIR")


def read_mini_suite(arguments: argparse.Namespace) -> MiniSuite | None:
    """The suite that the options ask for; None if DATA does not name it.

    Raises:
        ValueError: options of the suite without it, or out of range.
    """
    given = {
        "--mini-rows": arguments.mini_rows,
        "--mini-seed": arguments.mini_seed,
        "--mini-categories": arguments.mini_categories,
        "--make": arguments.make,
    }
    if MINI not in map(str, arguments.data):
        useless = [option for option, value in given.items() if value is not None]
        if useless:
            raise ValueError(f"{' and '.join(useless)}: the mini suite is not among DATA; add {MINI}")
        return None
    if arguments.make is not None and len(arguments.data) > 1:
        raise ValueError(f"--make writes the mini suite alone; name {MINI} and no other DATA")
    return MiniSuite(
        _DEFAULTS.num_rows if arguments.mini_rows is None else arguments.mini_rows,
        _DEFAULTS.seed if arguments.mini_seed is None else arguments.mini_seed,
        read_categories(arguments.mini_categories),
    )


def make_mini_suite(suite: MiniSuite, folder: Path) -> str:
    """`--make`: write it; returns a line that says so. Raises what `write_mini_suite` raises."""
    path = write_mini_suite(suite, folder.expanduser().absolute())
    return f"{suite.num_rows} rows in {path}"


def with_mini_suite(data: Sequence[str | Path], suite: MiniSuite | None, folder: Path) -> list[Path]:
    """DATA as files, the mini suite written into `folder` if it is among them."""
    return [
        mini_suite_at(suite, folder) if suite is not None and str(name) == MINI else Path(name).expanduser()
        for name in data
    ]
