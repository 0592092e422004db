"""`train --check`: what the rows are to the model, token by token, without training."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from ...command_line.arguments import media_options
from ...command_line.runner import print_json
from ...command_line.standard_streams import say
from ...media.urls import printable
from ...options import MediaOptions
from ...processor.processor import Processor
from ..dataset.data_arguments import media_options_of, rows_of
from ..dataset.examples import Example, make_examples
from ..dataset.training_row import RowError, RowTooLong, TrainingRow
from .shown_example import as_record, shown


class LeftOutRows:
    """Counts rows that are left out, and names each on stderr."""

    def __init__(self) -> None:
        self.too_long = self.bad = 0

    def __call__(self, error: RowError) -> None:
        """A row is left out."""
        self.too_long += isinstance(error, RowTooLong)
        self.bad += not isinstance(error, RowTooLong)
        say(f"left out: {printable(' '.join(str(error).split()), 1000)}")

    def say_count(self) -> None:
        """Say how many they were, if there were any."""
        counts = [f"{self.too_long} too long"] * (self.too_long > 0) + [f"{self.bad} bad"] * (self.bad > 0)
        if counts:
            say(f"rows left out: {' and '.join(counts)}")


def examples_of(
    arguments: argparse.Namespace,
    processor: Processor,
    rows: Sequence[TrainingRow],
    options: MediaOptions,
    left_out: LeftOutRows,
) -> Iterator[Example]:
    """The examples of rows, made as the arguments say. Raises RowError, as `make_examples` does."""
    return make_examples(
        processor,
        rows,
        arguments.train_on_prompt,
        max_length=arguments.max_length,
        media_options=options,
        on_left_out=left_out,
        skip_bad_rows=arguments.skip_bad_rows,
    )


def run_check(arguments: argparse.Namespace, processor: Processor) -> None:
    """Print each row of `--data` and of `--validation`, and write `--html`.

    Raises:
        FileNotFoundError, ValueError, ImportError: no rows, or what is wrong with files or rows.
        OSError: the page cannot be written.
    """
    is_coloured = sys.stdout.isatty()
    with ExitStack() as opened:
        page = None
        if arguments.html:
            from .check_page import CheckPage

            page = opened.enter_context(CheckPage(Path(arguments.html).expanduser(), arguments.data, processor))
        for path in filter(None, (arguments.data, arguments.validation)):
            left_out = LeftOutRows()
            num_rows = num_trained = 0
            rows = rows_of(arguments, path, left_out)
            is_main = path == arguments.data
            options = media_options_of(arguments, rows) if is_main else media_options(arguments)
            for example in examples_of(arguments, processor, rows, options, left_out):
                num_rows += 1
                num_trained += int(example.trained.sum())
                if arguments.json:
                    print_json(as_record(example))
                elif page is None:
                    print(shown(example, processor, is_coloured))
                if page is not None:
                    page.add(example)
            left_out.say_count()
            if not num_rows:
                raise ValueError(f"{path}: no row is left to {'train on' if is_main else 'validate on'}")
            of = f"{path}: " if arguments.validation else ""
            say(f"{of}rows: {num_rows}, trained tokens: {num_trained}")
    if arguments.html:
        say(f"wrote {arguments.html}")
