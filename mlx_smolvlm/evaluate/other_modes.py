"""What `evaluate` does beside a run: compare two, write the mini suite, show published scores, check known answers."""

import argparse
from pathlib import Path

from ..command_line.runner import path_argument
from ..command_line.standard_streams import say
from .mini.mini_arguments import make_mini_suite, read_mini_suite
from .mini.mini_selection import MINI

_SHIPPED = Path("-")  # --known-answers without a file
_TAKES = {  # each with the options that it takes
    "compare": ("out", "quiet"),
    "leaderboard": (),
    "known_answers": ("model", "dtype"),
    "make": ("data", "mini_rows", "mini_seed", "mini_categories"),
}


_OF_RUNS = ("judge", "judge_model", "scorer", "max_tokens", "batch_size", "max_cache_gib", "dtype", "out")


def add_other_modes(parser: argparse.ArgumentParser) -> None:
    """Add their options."""
    group = parser.add_argument_group("comparisons, published scores and known answers")
    group.add_argument(
        "--compare",
        nargs=2,
        type=path_argument,
        metavar=("RUN_A", "RUN_B"),
        help="ask nothing; compare two runs on the same rows (folders of --out)",
    )
    group.add_argument(
        "--leaderboard",
        nargs="*",
        type=path_argument,
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
    given = _given(arguments, defaults)
    mode = next((name for name in _TAKES if name in given), None)
    if mode is None:
        return None
    if useless := [_option(name) for name in given if name != mode and name not in _TAKES[mode]]:
        raise ValueError(f"{_option(mode)} does nothing else; leave {', '.join(useless)} out")
    if mode == "compare":
        _compare(arguments)
        return 0
    if mode == "leaderboard":
        from .published.leaderboard import leaderboard_text
        from .published.own_runs import read_own_run

        print(leaderboard_text([read_own_run(folder.expanduser()) for folder in arguments.leaderboard]))
        return 0
    if mode == "make":
        suite = read_mini_suite(arguments)
        if suite is not None:
            say(make_mini_suite(suite, arguments.make))
        return 0
    from .published.known_answers import KNOWN_ANSWERS  # imports MLX
    from .published.known_answers_command import run_known_answers

    file = KNOWN_ANSWERS if arguments.known_answers == _SHIPPED else arguments.known_answers.expanduser()
    return run_known_answers(file, arguments.model, arguments.dtype)


def unused_by_listing(arguments: argparse.Namespace, defaults: argparse.Namespace) -> list[str]:
    """Options given beside --print-prompts that only a run would use; the mini suite is written into --out."""
    has_use = {"out"} if MINI in map(str, arguments.data) else set()
    return [_option(name) for name in _given(arguments, defaults) if name in _OF_RUNS and name not in has_use]


def _given(arguments: argparse.Namespace, defaults: argparse.Namespace) -> list[str]:
    return [name for name, value in vars(arguments).items() if value != getattr(defaults, name)]


def _compare(arguments: argparse.Namespace) -> None:
    """Compare two runs: print, and with --out write a page and the figures."""
    from .runs.run_comparison import compare_runs, comparison_text, write_comparison

    if arguments.out is not None and arguments.out.exists() and not arguments.out.is_dir():
        raise NotADirectoryError(f"--out {arguments.out} is no folder; name one")
    found = compare_runs(*arguments.compare)
    print(comparison_text(found))
    if arguments.out is not None:
        write_comparison(found, arguments.compare[0], arguments.out)
        if not arguments.quiet:
            say(f"see {arguments.out / 'comparison.html'}")


def _option(name: str) -> str:
    return "DATA" if name == "data" else f"--{name.replace('_', '-')}"
