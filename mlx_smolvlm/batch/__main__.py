"""`python -m mlx_smolvlm.batch`: arguments and printing."""

import argparse
import sys
from pathlib import Path

from ..command_line import refuse_tracebacks
from ..generation_arguments import (
    DEFAULT_QUESTION,
    DEMO_NOTE,
    DEMO_QUESTION,
    form_options,
    generation_options,
    media_options,
)

_REPORT_S = 30.0  # between lines of progress, where there is no terminal


def main() -> None:
    """Run the command line; exits with 2 and one line on bad input."""
    with refuse_tracebacks():
        _run(_parser().parse_args())


def _run(arguments: argparse.Namespace) -> None:
    prompt = arguments.prompt
    if prompt is None:
        prompt = DEFAULT_QUESTION if arguments.model else DEMO_QUESTION
    from ..generation_arguments import with_system_prompt

    with_system_prompt(prompt, arguments.system, 0, 0)  # what cannot be asked is said before a model is downloaded
    from .inputs import read_items

    items = read_items(arguments.input)
    from .. import DEMO_MODEL, GenerationOptions, MediaOptions, load
    from .job import Job, Question
    from .ranks import Ranks

    question = Question(
        prompt,
        arguments.system,
        GenerationOptions(**generation_options(arguments), **form_options(arguments)),
        MediaOptions(**media_options(arguments)),
    )
    ranks = Ranks()
    with Job(items, question, Path(arguments.out).expanduser(), ranks, arguments.retry_errors) as job:
        for note in job.notes:
            print(f"note: {note}", file=sys.stderr)
        if arguments.model is None and ranks.rank == 0:
            print(DEMO_NOTE.format(example='pictures --out captions.jsonl'), file=sys.stderr)
        model, processor = load(arguments.model or DEMO_MODEL, dtype=arguments.dtype)
        job.begin(arguments.model or "demo", model)


if __name__ == "__main__":
    main()
