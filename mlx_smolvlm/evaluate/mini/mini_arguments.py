"""The mini suite on the command line: `evaluate mini`, its size and where it is written."""

import argparse
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from ...command_line.runner import output_path
from ..runs.evaluation_folder import MADE_DATA, read_run
from .mini_selection import BASIC, BASIC_CATEGORIES, CATEGORIES, MINI, MiniSuite, read_categories

_MAX_TOKENS = 64  # of an answer; all true ones are shorter
_DEFAULTS = MiniSuite()


def add_mini_arguments(parser: argparse.ArgumentParser) -> None:
    """Add its options."""
    group = parser.add_argument_group("mini suite", f"DATA {MINI}: a benchmark made from a seed, without a download")
    group.add_argument("--mini-rows", type=int, metavar="N", help=f"its rows (default: {_DEFAULTS.num_rows})")
    group.add_argument("--mini-seed", type=int, metavar="S", help=f"its seed (default: {_DEFAULTS.seed})")
    group.add_argument(
        "--mini-categories",
        metavar="NAMES",
        help=f"which of its categories ({', '.join(CATEGORIES)}), comma-separated; {BASIC} for the first "
        f"{len(BASIC_CATEGORIES)}, which the demo model knows (default: all)",
    )
    group.add_argument("--make", type=output_path, metavar="DIR", help="only write it into a new folder DIR")


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
    from .mini_suite import write_mini_suite  # slow to import, as are fonts and videos

    path = write_mini_suite(suite, folder.expanduser().absolute())
    return f"{suite.num_rows} rows in {path}"


def set_defaults(arguments: argparse.Namespace, protocol: str, max_tokens: int) -> None:
    """Fill in what was not given; where the mini suite alone is asked, the model's own chat and few tokens."""
    is_mini = [str(name) for name in arguments.data] == [MINI]
    if arguments.protocol is None:
        arguments.protocol = "chat" if is_mini and arguments.wrapper is None else protocol
    if arguments.max_tokens is None:
        arguments.max_tokens = _MAX_TOKENS if is_mini else max_tokens


def data_files(arguments: argparse.Namespace, opened: ExitStack) -> list[Path]:
    """DATA as files. If the mini suite is among them, it is written: into the run's folder, or a temporary one.

    Raises:
        ValueError: as `read_mini_suite`.
    """
    suite = read_mini_suite(arguments)
    if suite is None:
        return [Path(name).expanduser() for name in arguments.data]
    from .mini_suite import mini_suite_at

    if arguments.out is None:
        folder = Path(opened.enter_context(TemporaryDirectory(prefix="mlx-smolvlm-mini-")))
    else:
        read_run(arguments.out, is_new_allowed=True)  # a folder of something else is left as it is
        folder = arguments.out / MADE_DATA
        folder.mkdir(parents=True, exist_ok=True)
    made = mini_suite_at(suite, folder)
    return [made if str(name) == MINI else Path(name).expanduser() for name in arguments.data]
