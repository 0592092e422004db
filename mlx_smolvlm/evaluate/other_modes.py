"""What `evaluate` does beside a run: write the mini suite, show the published scores, check known answers."""

import argparse
from pathlib import Path

from ..command_line.standard_streams import say
from .mini_arguments import make_mini_suite, read_mini_suite

_SHIPPED = Path("-")  # --known-answers without a file


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


def run_other_mode(arguments: argparse.Namespace) -> int | None:
    """Run one of these; returns the exit status, or None if no such option is given.

    Raises:
        ValueError: options that have no meaning together.
    """
    asked = [
        option
        for option, value in (
            ("--leaderboard", arguments.leaderboard),
            ("--known-answers", arguments.known_answers),
            ("--make", arguments.make),
            ("--compare", arguments.compare),
            ("--print-prompts", arguments.print_prompts or None),
        )
        if value is not None
    ]
    if not asked or asked[0] in ("--compare", "--print-prompts"):
        return None
    if len(asked) > 1:
        raise ValueError(f"{' and '.join(asked)} exclude each other; give one")
    if arguments.out is not None or (arguments.data and asked != ["--make"]):
        raise ValueError(f"{asked[0]} evaluates nothing; leave {'--out' if arguments.out else 'DATA'} out")
    if arguments.leaderboard is not None:
        if arguments.model is not None:
            raise ValueError("--leaderboard shows what is known; leave --model out")
        from .leaderboard import leaderboard_text
        from .own_runs import read_own_run

        print(leaderboard_text([read_own_run(folder) for folder in arguments.leaderboard]))
        return 0
    if arguments.make is not None:
        suite = read_mini_suite(arguments)
        if suite is not None:
            say(make_mini_suite(suite, arguments.make))
        return 0
    from .known_answers import KNOWN_ANSWERS  # imports MLX
    from .known_answers_command import run_known_answers

    file = KNOWN_ANSWERS if arguments.known_answers == _SHIPPED else arguments.known_answers.expanduser()
    return run_known_answers(file, arguments.model, arguments.dtype)
