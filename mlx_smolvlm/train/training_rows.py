"""A file or folder of rows -> conversations to train on."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from ..options import quoted
from .row_files import Entry, delimited, json_lines, json_list
from .row_forms import read_row
from .row_media import RowMedia
from .training_row import RowError, TrainingRow

_READERS: dict[str, Callable[[Path], Iterator[Entry]]] = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".json": json_list,
    ".csv": delimited,
    ".tsv": delimited,
}


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
        path: JSON lines, a JSON list (llava), CSV or TSV.
        image_folder: where names of images count from; None for the folder that holds the rows.
        allow_urls: whether rows may name images on the web.
        ignored_fields: fields of rows that are left out of account; all others are used or refused.
        on_bad_row: called with what is wrong with a row, which is then left out.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: no rows, or a file that cannot be read; RowError for a bad row.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"no file {quoted(str(path), 300)} with rows to train on")
    if path.is_dir() or path.suffix.lower() not in _READERS:
        raise ValueError(f"{path} is no file of rows; expected {', '.join(_READERS)}")
    media = RowMedia(Path(path.parent if image_folder is None else image_folder).expanduser().absolute(), allow_urls)
    if not media.folder.is_dir():
        raise FileNotFoundError(f"--image-folder {media.folder}: there is no such folder")
    rows, num_entries = [], 0
    for name, fields in _READERS[path.suffix.lower()](path):
        num_entries += 1
        try:
            if isinstance(fields, RowError):
                raise fields
            rows.append(read_row(fields, name, media, ignored_fields))
        except ValueError as error:
            on_bad_row(error if isinstance(error, RowError) else RowError(name, error))
    if not rows:
        raise ValueError(f"{path} has no rows to train on" + (f": all {num_entries} are bad" if num_entries else ""))
    return rows
