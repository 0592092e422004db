"""What `evaluate` does beside a run: write the mini suite, show the published scores, check known answers."""

import argparse
from pathlib import Path

from ..command_line.standard_streams import say
from .mini_arguments import make_mini_suite, read_mini_suite

_SHIPPED = Path("-")  # --known-answers without a file
_TAKES = {  # each with the options that it takes
    "leaderboard": (),
    "known_answers": ("model", "dtype"),
    "make": ("data", "mini_rows", "mini_seed", "mini_categories"),
}


def add_other_modes(parser: argparse.ArgumentParser) -> None:
    """Add their options."""
    group = parser.add_argument_group("published scores and known answers")
    group.add_argument(
        "--leaderboard",
        nargs="*",
        type=Path,
        metavar="RUN",
        help="ask nothing; print the family's published scores, beside runs (folders of --out)",
    )
    group.add_argument(
        "--known-answers",
        nargs="?",
        type=Path,
        const=_SHIPPED,
        metavar="FILE",
        help="check what released checkpoints are known to answer (downloads them), or the records of FILE; with "
        "--model, that one alone. Exit status 1 if something differs",
    )


def run_other_mode(arguments: argparse.Namespace, defaults: argparse.Namespace) -> int | None:
    """Run one of these; returns the exit status, or None if no such option is given.

    Args:
        arguments: what was given.
        defaults: the same of an empty command line.

    Raises:
        ValueError: options that have no meaning together.
    """
    given = [name for name, value in vars(arguments).items() if value != getattr(defaults, name)]
    mode = next((name for name in _TAKES if name in given), None)
    if mode is None:
        return None
    if useless := [_option(name) for name in given if name != mode and name not in _TAKES[mode]]:
        raise ValueError(f"{_option(mode)} does nothing else; leave {', '.join(useless)} out")
    if mode == "leaderboard":
        from .leaderboard import leaderboard_text
        from .own_runs import read_own_run

        print(leaderboard_text([read_own_run(folder.expanduser()) for folder in arguments.leaderboard]))
        return 0
    if mode == "make":
        suite = read_mini_suite(arguments)
        if suite is not None:
            say(make_mini_suite(suite, arguments.make))
        return 0
    from .known_answers import KNOWN_ANSWERS  # imports MLX
    from .known_answers_command import run_known_answers

    file = KNOWN_ANSWERS if arguments.known_answers == _SHIPPED else arguments.known_answers.expanduser()
    return run_known_answers(file, arguments.model, arguments.dtype)


def _option(name: str) -> str:
    return "DATA" if name == "data" else f"--{name.replace('_', '-')}"
