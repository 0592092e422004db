"""The arguments of `train` that name the rows and how they are read."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from ...command_line.arguments import add_media_arguments, media_options, refuse_unused
from ...command_line.runner import output_argument
from ...options import MediaOptions
from .training_row import RowError, TrainingRow


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Which rows, which of their tokens, and `--check`, which shows both."""
    data = parser.add_argument_group("rows")
    data.add_argument(
        "--data", metavar="ROWS", help=".jsonl, .json, .csv, .tsv or .parquet, or a folder of Hugging Face datasets"
    )
    data.add_argument("--train-on-prompt", action="store_true", help="train all tokens but those of images")
    data.add_argument(
        "--max-length", type=int, metavar="N", help="leave out rows of more tokens (default: the context)"
    )
    data.add_argument("--skip-bad-rows", action="store_true", help="name bad rows and go on without them")
    data.add_argument(
        "--image-folder", metavar="DIR", help="names of images count from here, not from the rows' folder"
    )
    data.add_argument("--allow-urls", action="store_true", help="open images that rows name on the web")
    data.add_argument(
        "--ignore-fields",
        type=lambda names: [name.strip() for name in names.split(",") if name.strip()],
        default=[],
        metavar="A,B",
        help="fields of rows that are not used; all others are used or refused",
    )
    data.add_argument("--preference", action="store_true", help="rows have a chosen and a rejected answer (DPO)")
    data.add_argument(
        "--beta",
        type=float,
        default=0.1,
        metavar="B",
        help="of DPO (default: 0.1): the smaller, the further the model may leave the one it was",
    )
    held = parser.add_argument_group("validation")
    held.add_argument("--validation", metavar="ROWS", help="held rows, read as --data is; the best step is kept")
    held.add_argument("--validation-share", type=float, metavar="S", help="hold this share of the rows, such as 0.1")
    held.add_argument("--validate-every", type=int, metavar="N", help="steps between two (default: a tenth of the run)")
    held.add_argument("--patience", type=int, metavar="N", help="end after so many validations without a better one")
    check = parser.add_argument_group("looking at rows")
    check.add_argument("--check", action="store_true", help="show the tokens of each row, the trained ones marked")
    check.add_argument("--json", action="store_true", help="with --check: a line of JSON for each row")
    check.add_argument(
        "--html", type=output_argument, metavar="FILE", help="with --check: write a page with rows and images"
    )
    add_media_arguments(parser)


def check_data_arguments(arguments: argparse.Namespace) -> None:
    """Raise ValueError for arguments of rows that are missing, out of range or without effect."""
    if arguments.data is None:
        raise ValueError("--data is missing; name the rows to train on")
    for name in ("data", "image_folder", "validation", "html", "plot", "init_adapter", "feature_cache"):
        if getattr(arguments, name) == "":  # a variable that is not set is neither this folder nor none
            raise ValueError(f"--{name.replace('_', '-')} is empty; name a file or folder, or leave it out")
    if arguments.max_length is not None and arguments.max_length < 2:
        raise ValueError(f"--max-length is {arguments.max_length}, expected at least 2 tokens")
    for option in ("json", "html"):
        if getattr(arguments, option) and not arguments.check:
            raise ValueError(f"--{option} shows what --check finds; add --check, or leave it out")
    if arguments.html and not Path(arguments.html).expanduser().absolute().parent.is_dir():
        raise FileNotFoundError(f"--html {arguments.html}: there is no such folder")


def rows_of(arguments: argparse.Namespace, path: str, on_left_out: Callable[[RowError], None]) -> list[TrainingRow]:
    """The rows of a file, read as the arguments say; with `--preference` chosen and rejected ones in turn.

    Raises:
        FileNotFoundError, ValueError, ImportError: what `read_rows` raises.
    """
    from .preference_rows import read_preference
    from .row_forms import read_row
    from .training_rows import raise_error, rows_as

    on_bad_row = on_left_out if arguments.skip_bad_rows else raise_error
    how = (path, arguments.image_folder, arguments.allow_urls, arguments.ignore_fields, on_bad_row)
    if arguments.preference:
        return [row for pair in rows_as(read_preference, *how) for row in (pair.chosen, pair.rejected)]
    return rows_as(read_row, *how)


def media_options_of(arguments: argparse.Namespace, rows: Sequence[TrainingRow]) -> MediaOptions:
    """How images and videos of rows are read. Raises ValueError for options of what no row has."""
    options = media_options(arguments)
    items = (item for row in rows for message in row.messages for item in message["content"])
    kinds = {str(item.get("type")) for item in items if isinstance(item, dict)}  # what is no item is refused by row
    has_images = bool(kinds & {"image", "image_url"}) or any(row.images for row in rows)
    refuse_unused(options, has_images=has_images, has_videos="video" in kinds)
    return options
