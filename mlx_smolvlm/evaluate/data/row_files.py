"""Data files -> rows: VLMEvalKit's tables (.tsv, .csv) and JSON lines (.jsonl)."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...media.urls import is_url
from ...model.json_fields import doubled_key
from ...options import quoted
from .eval_rows import EvalRow, JsonValue, is_list
from .row_fields import INDEX_CHARS, Record, read_row
from .sets import read_set_name
from .table_cells import MISSING, TableCell, as_pandas_reads, read_table

DELIMITERS = {".tsv": "\t", ".csv": ","}
JSON_LINES = (".jsonl", ".ndjson")
_KEPT_CHARS = 4096  # a longer string with an image stays in the file


@dataclass
class RowFiles:
    """The rows of data files, and what is to be said about them.

    Attributes:
        rows: in order, all of different keys.
        unused: columns that neither prompts nor scores use.
    """

    rows: list[EvalRow] = field(default_factory=list)
    unused: set[str] = field(default_factory=set)


def read_rows(paths: Sequence[Path], dataset: str | None = None, image_root: Path | None = None) -> RowFiles:
    """The rows of files, one after the other.

    Args:
        paths: .tsv and .csv with VLMEvalKit's columns, .jsonl with the same names as fields.
        dataset: the set of rows that name none; None for the file's name.
        image_root: the folder from which paths in rows count; None for the folder of the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is not understood, that lacks a column, or an index that two rows share. What is wrong
            with one row alone is its `fault`.
    """
    found = RowFiles()
    keys: dict[tuple[str, str], str] = {}
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; expected rows as .tsv, .csv or .jsonl")
        set_name = read_set_name(dataset or path.stem)
        for number, record in _records(path):
            where = f"{path}, row {number}"
            try:
                row = read_row(record, set_name, image_root or path.parent, found.unused)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
            if row.key in keys:
                raise ValueError(f"{where}: the index {quoted(row.index)} is that of {keys[row.key]}, too; number them")
            keys[row.key] = where
            found.rows.append(row)
    if not found.rows:
        raise ValueError(f"{' and '.join(map(str, paths))} hold no rows")
    return found


def _records(path: Path) -> Iterator[tuple[int, Record]]:
    suffix = path.suffix.lower()
    if suffix in JSON_LINES:
        return _json_records(path)
    if suffix in DELIMITERS:
        return _table_records(path, DELIMITERS[suffix])
    raise ValueError(f"{path}: expected a file called .tsv, .csv or .jsonl")


def _table_records(path: Path, delimiter: str) -> Iterator[tuple[int, Record]]:
    """Records as VLMEvalKit has them: columns as pandas reads them, shared images in the place of their indices."""
    numbered = list(read_table(path, delimiter, {"image"}, INDEX_CHARS))
    records: list[Record] = [dict(record) for _, record in numbered]
    for name in list(records[0]) if records else []:
        if name == "image":
            for record in records:
                record[name] = None if record[name] in MISSING else _path_in(record[name])
        else:
            for record, value in zip(records, as_pandas_reads([record[name] for record in records]), strict=True):
                record[name] = value
    for name in ("question", "index"):
        if records and name not in records[0]:
            raise ValueError(f"{path} has no column {name}, but {', '.join(records[0])[:200]}")
    if records and all(_is_whole(record["index"]) for record in records):
        for record in records:
            record["index"] = int(record["index"])
    owners = {str(record.get("index")): record.get("image") for record in records}
    for record in records:
        shared = record.get("image")
        if isinstance(shared, str) and not _names_file(shared, path.parent):
            record["image"] = owners.get(shared.strip())
            if not isinstance(record["image"], TableCell):
                record["fault"] = f"its image is {quoted(shared, 80)}: no row's index with an image, and no image"
    return zip([number for number, _ in numbered], records, strict=True)


def _path_in(cell: str | TableCell) -> str | TableCell:
    """A long cell with a path, or a list of paths, as text: base64 has no full stop."""
    if isinstance(cell, TableCell) and cell.stop - cell.start <= _KEPT_CHARS:
        try:
            text = cell.read()
        except ValueError:
            return cell  # its row fails when the image is read
        return text if "." in text else cell
    return cell


def _is_whole(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= INDEX_CHARS and value.lstrip("-").isdecimal()


def _names_file(text: str, folder: Path) -> bool:
    """Whether a short cell is the path of an image: tables of other programs have paths there."""
    return is_url(text) or bool(Path(text).suffix) or os.path.isfile(folder / text)


def _constant(name: str) -> float | None:
    """NaN is what pandas has in an empty cell, and what Python's json writes of it."""
    return None if name == "NaN" else float(name)


def _json_records(path: Path) -> Iterator[tuple[int, Record]]:
    def without_doubles(pairs: list[tuple[str, Any]]) -> Record:
        if (twice := doubled_key(pairs)) is not None:
            raise ValueError(f"the field {quoted(twice)} stands there twice; leave one out")
        return dict(pairs)

    start, number = 0, 0
    with open(path, "rb") as file:
        for line in file:
            stop = start + len(line)
            if line.strip():
                number += 1
                try:
                    record = json.loads(
                        line.decode("utf-8-sig"), object_pairs_hook=without_doubles, parse_constant=_constant
                    )
                except UnicodeDecodeError:
                    raise ValueError(f"{path}, row {number} is not UTF-8 text") from None
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"{path}, row {number} is no JSON object: {error}") from None
                if not isinstance(record, dict):
                    raise ValueError(f"{path}, row {number} is {quoted(record)}, expected an object")
                record.setdefault("index", number)
                for name in ("image", "images"):
                    value = record.get(name)
                    if isinstance(value, str) and len(value) > _KEPT_CHARS:
                        record[name] = JsonValue(path, start, stop, (name,), is_list(value))
                    elif isinstance(value, list):
                        record[name] = [
                            JsonValue(path, start, stop, (name, place))
                            if isinstance(item, str) and len(item) > _KEPT_CHARS
                            else item
                            for place, item in enumerate(value)
                        ]
                yield number, record
            start = stop
