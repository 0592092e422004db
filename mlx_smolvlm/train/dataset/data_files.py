"""Files of rows -> one object each, with its line: JSON lines, a JSON list, CSV and TSV."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...model.json_fields import doubled_key
from ...options import quoted
from .training_row import RowError

Entry = tuple[str, dict[str, Any] | RowError]
"""A row's name, and its fields or why it cannot be read."""
_CONVERSATION = {"question", "answer", "prompt", "completion", "messages", "conversations", "chosen", "rejected"}
_COLUMNS = ("question", "prompt", "answer", "completion", "messages", "conversations", "image", "file_name")
_NOT_UTF8 = "not UTF-8 text; save the file in that encoding"
_DELIMITERS = (",", ";", "\t")  # a spreadsheet takes the second where the comma separates decimals


def json_lines(path: Path) -> Iterator[Entry]:
    """An object in each line. Blank lines are none."""
    with open(path, "rb") as file:  # lines are decoded one by one, so that a broken one is named
        for number, line in enumerate(file, 1):
            name = f"{path.name}:{number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                yield name, RowError(name, _NOT_UTF8)
                continue
            if text.strip():
                yield name, _object(text, name)


def json_list(path: Path) -> Iterator[Entry]:
    """A list of objects, as llava has them."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:  # of the decoder and of the text, too
        has_more = str(error).startswith("Extra data")
        advice = "; if it has an object on each line, name it .jsonl" if has_more else ""
        raise ValueError(f"{path} is not a JSON file: {error}{advice}") from None
    if not isinstance(entries, list):
        raise ValueError(f"{path} holds {quoted(entries)}, expected a list of rows; write one object a line as .jsonl")
    for number, entry in enumerate(entries, 1):
        name = f"{path.name}:{number}"
        yield name, entry if isinstance(entry, dict) else RowError(name, f"expected an object, got {quoted(entry)}")


def delimited(path: Path) -> Iterator[Entry]:
    """CSV and TSV with a line of names of columns; values in quotes may have line breaks."""
    line = 0
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(header)
            rows = csv.reader(file, delimiter=delimiter, strict=True)
            columns = [column.strip() for column in next(rows, [])]
            if not set(columns) & _CONVERSATION:
                raise ValueError(
                    f"{path} begins with the columns {quoted(', '.join(columns))}; expected image, question and answer "
                    "in the first line; a caption is the answer to a question such as 'Describe this image.'"
                )
            _check_columns(columns, path)
            line = rows.line_num
            for values in rows:
                name, line = f"{path.name}:{line + 1}", rows.line_num
                if not values:
                    continue
                if len(values) == len(columns):
                    yield name, dict(zip(columns, values, strict=True))
                else:
                    yield name, RowError(name, f"has {len(values)} values, expected {len(columns)}, one per column")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: {_NOT_UTF8}") from None
    except csv.Error as error:
        advice = "; keep so much in a .jsonl file" if "field limit" in str(error) else ""
        raise ValueError(f"{path.name}:{line + 1}: not CSV: {error}{advice}") from None


def _check_columns(columns: list[str], path: Path) -> None:
    """Refuse a column without a name, as pandas writes its index, and two of one name."""
    if "" in columns:
        raise ValueError(
            f"{path}: column {columns.index('') + 1} has no name; give it one in the first line, or leave it out "
            "(pandas: to_csv(index=False))"
        )
    if (twice := doubled_key([(column, None) for column in columns])) is not None:
        raise ValueError(f"{path}: two columns are called {quoted(twice)}; leave one out")


def _delimiter(header: str) -> str:
    """What separates the columns: that by which most of them are known."""
    names = header.strip("\ufeff\r\n")
    return max(_DELIMITERS, key=lambda sign: len({name.strip('" ') for name in names.split(sign)} & set(_COLUMNS)))


def _object(text: str, name: str) -> dict[str, Any] | RowError:
    try:
        entry = json.loads(text, object_pairs_hook=_without_doubles)
    except json.JSONDecodeError as error:
        return RowError(name, f"not JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:
        return RowError(name, f"not JSON: {error}")
    return entry if isinstance(entry, dict) else RowError(name, f"expected an object, got {quoted(entry)}")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if (twice := doubled_key(pairs)) is not None:
        raise ValueError(f"the field {quoted(twice)} stands there twice; leave one out")
    return dict(pairs)
