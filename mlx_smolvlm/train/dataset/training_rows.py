"""A file or folder of rows -> conversations to train on."""

import glob
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ...options import quoted
from .data_files import Entry, delimited, json_lines, json_list
from .row_forms import read_row
from .row_media import RowMedia
from .table_files import TABLES, files_of, table_rows
from .training_row import RowError, TrainingRow

_READERS: dict[str, Callable[[Path], Iterator[Entry]]] = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".json": json_list,
    ".csv": delimited,
    ".tsv": delimited,
    **dict.fromkeys(TABLES, table_rows),
}


Row = TypeVar("Row")
ReadRow = Callable[[dict[str, Any], str, RowMedia, Collection[str]], Row]
"""Fields, name, media and ignored fields -> a row."""


def raise_error(error: RowError) -> None:
    """What is done about bad rows unless asked otherwise."""
    raise error


def read_rows(
    path: str | Path,
    *,
    image_folder: str | Path | None = None,
    allow_urls: bool = False,
    ignored_fields: Collection[str] = (),
    on_bad_row: Callable[[RowError], None] = raise_error,
) -> list[TrainingRow]:
    """All rows of a file, in its order. No image is opened yet.

    Args:
        path: JSON lines, a JSON list (llava), CSV, TSV, Parquet or Arrow; a folder as `datasets` saves it, of Parquet
            files, or with `metadata.jsonl`; or a pattern such as `data/train-*.parquet`.
        image_folder: where names of images count from; None for the folder that holds the rows.
        allow_urls: whether rows may name images on the web.
        ignored_fields: fields of rows that are left out of account; all others are used or refused.
        on_bad_row: called with what is wrong with a row, which is then left out.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: no rows, or a file that cannot be read; RowError for a bad row.
        ModuleNotFoundError: a table without pyarrow.
    """
    return rows_as(read_row, path, image_folder, allow_urls, ignored_fields, on_bad_row)


def rows_as(
    read: ReadRow[Row],
    path: str | Path,
    image_folder: str | Path | None,
    allow_urls: bool,
    ignored_fields: Collection[str],
    on_bad_row: Callable[[RowError], None],
) -> list[Row]:
    """As `read_rows`, for rows of any kind: `read` makes one of a row's fields."""
    rows: list[Row] = []
    num_entries = 0
    for file in _files(Path(path).expanduser()):
        media = RowMedia(
            Path(file.parent if image_folder is None else image_folder).expanduser().absolute(), allow_urls
        )
        if not media.folder.is_dir():
            raise FileNotFoundError(f"--image-folder {media.folder}: there is no such folder")
        for name, fields in _READERS[file.suffix.lower()](file):
            num_entries += 1
            try:
                if isinstance(fields, RowError):
                    raise fields
                rows.append(read(fields, name, media, ignored_fields))
            except ValueError as error:
                on_bad_row(error if isinstance(error, RowError) else RowError(name, error))
    if not rows:
        raise ValueError(f"{path} has no rows to train on" + (f": all {num_entries} are bad" if num_entries else ""))
    return rows


def _files(path: Path) -> list[Path]:
    """The files of a path: itself, those of a folder, or those that a pattern names."""
    files = files_of(path) if path.is_dir() else [path]
    if not path.exists():
        files = [Path(name) for name in sorted(glob.glob(str(path))) if Path(name).is_file()]
        if not files:
            raise FileNotFoundError(f"no file {quoted(str(path), 300)} with rows to train on")
    if len({file.name for file in files}) < len(files):
        raise ValueError(f"{path} names files of one name in several folders, whose rows could not be told apart")
    for file in files:
        if file.suffix.lower() not in _READERS:
            raise ValueError(f"{file} is no file of rows; expected {', '.join(_READERS)}")
        if file.exists() and not file.is_file():  # a pipe would be waited for, and rows are read more than once
            raise ValueError(f"{file} is not a regular file; save the rows to one")
    return files
