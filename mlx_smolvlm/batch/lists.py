"""The files that name images and videos: JSON lines, CSV, or text with a path in each line."""

import csv
import json
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from ..media.urls import is_url
from ..model.json_fields import doubled_key
from .items import Item, make_item

PATH_FIELDS = ("path", "file_name", "image", "video")  # the second is what Hugging Face's image folders call it
PROMPT_FIELDS = ("prompt", "question")
_DELIMITERS = ",;\t"  # a spreadsheet takes the second where the comma separates decimals
_SHOWN_CHARACTERS = 80


def is_list(path: Path) -> bool:
    """Whether a file is a list of what to ask about, by its suffix."""
    return path.suffix.lower() in _READERS


def read_list(path: Path, ignored: Collection[str] = (), met: set[str] | None = None) -> Iterator[Item]:
    """The entries of a list.

    Args:
        path: the list; names in it count from its folder.
        ignored: fields that are left out of account. All others are used or refused.
        met: gets those of `ignored` that there are.

    Raises:
        ValueError: it cannot be read, names nothing, or has an entry that is not understood.
    """
    number = 0
    try:
        for number, entry in _READERS[path.suffix.lower()](path):
            try:
                if isinstance(entry, dict) and ignored:
                    if met is not None:
                        met |= set(ignored) & entry.keys()
                    entry = {name: value for name, value in entry.items() if name not in ignored}
                yield _entry(entry, path)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None
    if not number:
        raise ValueError(f"{path} names nothing; expected an image in each line")


def _entry(entry: Any, path: Path) -> Item:
    if isinstance(entry, str):
        entry = {"path": entry}
    if not isinstance(entry, dict):
        raise ValueError(f"expected an object with a path, got {_shown(entry)}")
    field = _the_one(entry, PATH_FIELDS)
    unknown = [name for name in entry if name not in (*PATH_FIELDS, *PROMPT_FIELDS)]
    expected = f"{' or '.join(PATH_FIELDS)}, and {' or '.join(PROMPT_FIELDS)}"
    if field is None:
        found = ", ".join(entry)[:_SHOWN_CHARACTERS] or "none"
        raise ValueError(f"no path; expected one of the fields {', '.join(PATH_FIELDS)}, got {found}")
    if unknown:
        raise ValueError(
            f"the field {_shown(unknown[0])} is not known; expected {expected}. --ignore-fields leaves others out of "
            "account"
        )
    prompt_field = _the_one(entry, PROMPT_FIELDS)
    name, prompt = entry[field], None if prompt_field is None else entry[prompt_field]
    is_elsewhere = is_url(name) or os.path.isabs(os.path.expanduser(name))
    source = name if is_elsewhere else os.path.abspath(path.parent / name)
    return make_item(name, source, True if field == "video" else None, prompt)


def _the_one(entry: dict[str, Any], fields: tuple[str, ...]) -> str | None:
    """Which of several fields has a text; None if none has. Raises ValueError for other values, and for two."""
    given = []
    for field in fields:
        value = entry.get(field)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{field} is {_shown(value)}, expected text")
        if value and value.strip():
            given.append(field)
    if len(given) > 1:
        what = "a prompt" if fields == PROMPT_FIELDS else "a path"
        raise ValueError(f"{' and '.join(given)} each give {what}; expected one of them (a line for each image)")
    return given[0] if given else None


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield number, json.loads(line, object_pairs_hook=_without_doubles)
                except (json.JSONDecodeError, RecursionError) as error:
                    raise ValueError(f"{path}, line {number} is not JSON: {error}") from None
                except _Doubled as error:
                    raise ValueError(f"{path}, line {number}: {error}") from None


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        file.seek(0)
        rows = csv.DictReader(file, delimiter=_delimiter(header), strict=True)
        try:
            columns = rows.fieldnames or []
            if columns and not set(PATH_FIELDS) & set(columns):
                named = ", ".join(columns)[:200]
                expected = " or ".join(PATH_FIELDS)
                raise ValueError(f"{path} begins with the columns {named}; expected {expected} among them")
            _without_doubles([(column, None) for column in columns])
            for row in rows:
                if None in row or None in row.values():
                    raise ValueError(f"{path}, line {rows.line_num}: expected {len(columns)} values, one per column")
                yield rows.line_num, row
        except csv.Error as error:
            advice = "; keep so much in a .jsonl list" if "field limit" in str(error) else ""
            raise ValueError(f"{path}, line {rows.line_num} is not CSV: {error}{advice}") from None
        except _Doubled as error:
            raise ValueError(f"{path}: {error}") from None


def _delimiter(header: str) -> str:
    """What separates the columns: that by which one of them is known."""
    for delimiter in _DELIMITERS:
        if set(PATH_FIELDS) & {name.strip('"') for name in header.strip("\ufeff\r\n").split(delimiter)}:
            return delimiter
    return _DELIMITERS[0]


def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """A path or address in each line. A text that names nothing of the kind was hardly meant as a list."""
    with open(path, encoding="utf-8-sig") as file:
        lines = [(number, line.strip()) for number, line in enumerate(file, 1) if line.strip()]
    if lines and not any(is_url(name) or os.path.exists(path.parent / os.path.expanduser(name)) for _, name in lines):
        number, name = lines[0]
        raise ValueError(
            f"{path}, line {number}: there is no file {_shown(name)}, nor is any other line one; a .txt list has a "
            "path or an address in each line"
        )
    yield from lines


class _Doubled(ValueError):
    """A field stands twice in one entry."""


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if (twice := doubled_key(pairs)) is not None:
        raise _Doubled(f"the field {_shown(twice)} stands there twice; leave one out")
    return dict(pairs)


def _shown(value: Any) -> str:
    return json.dumps(value)[:_SHOWN_CHARACTERS]


_READERS: dict[str, Callable[[Path], Iterator[tuple[int, Any]]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    ".txt": _text_lines,
}
