"""How results stand in a file: JSON lines, CSV, or one JSON array. Each can be gone on with after any end.

A file is an opening, records with something between them, and a closing. A record is added by one write that begins
where the closing is and ends with a new one, so that the file is complete after every record.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO

from .record import Result, parse_line
from .result_files import RANK

_COLUMNS = [(field.name, field.type) for field in fields(Result)]
_CELL = re.compile(r'(?:^|,)(?:"((?:[^"]|"")*)"|([^",\r\n]*))(?=,|$)')
_RECORD = b'{"path": '


@dataclass(frozen=True)
class FileLayout:
    """One of the ways.

    Attributes:
        name: for people.
        opening, between, closing: what stands around the records. A file without a record is empty.
        encode: a result -> its record, without a line break at its end.
        decode: the inverse; raises ValueError if it is not one.
        chunks: a file, from behind the opening on -> line number from there, and a record with what follows it.
        is_delimited: whether a record tells where it ends, so that one with nothing behind it is known to be whole.
        beginning: of every record that `encode` makes.
    """

    name: str
    opening: bytes
    between: bytes
    closing: bytes
    encode: Callable[[Result], bytes]
    decode: Callable[[bytes], Result]
    chunks: Callable[[IO[bytes]], Iterator[tuple[int, bytes]]]
    is_delimited: bool
    beginning: bytes

    def record(self, chunk: bytes) -> bytes:
        """One of `chunks` without what follows the record."""
        return chunk.removesuffix(b"\n").removesuffix(self.between.removesuffix(b"\n"))

    def is_closing(self, chunk: bytes) -> bool:
        """Whether one of `chunks` is the closing, or white space after it."""
        return bool(self.closing.strip()) and chunk.strip() in (self.closing.strip(), b"")

    def results(self, file: IO[bytes]) -> Iterator[Result]:
        """Those of a file that is whole."""
        file.seek(len(self.opening))
        for _, chunk in self.chunks(file):
            if not self.is_closing(chunk):
                yield self.decode(self.record(chunk))


def layout_of(path: Path) -> FileLayout:
    """How results are kept in a file of this name.

    Raises:
        ValueError: a name that says nothing of it.
    """
    if RANK.search(path.name):
        return _LAYOUTS[".jsonl"]
    layout = _LAYOUTS.get(path.suffix.lower())
    if layout is None:
        raise ValueError(
            f"--out {path}: the name says in which form; expected one that ends in .jsonl (a line of JSON each), .json "
            "(one array) or .csv, or - for standard output"
        )
    return layout


def refuse_legacy(path: Path, layout: FileLayout, start: bytes) -> None:
    """Raise ValueError for JSON lines under another name, as earlier versions wrote them."""
    if layout.opening and start.startswith(_RECORD):
        raise ValueError(f"{path} holds JSON lines; rename it to {path.stem}.jsonl, or write to another file")


def _json_line(result: Result) -> bytes:
    return result.line().removesuffix(b"\n")


def _csv_row(result: Result) -> bytes:
    """Texts in quotes, numbers without; nothing stands for None."""
    cells = []
    for value in asdict(result).values():
        text = "" if value is None else str(value)
        cells.append('"{}"'.format(text.replace('"', '""')) if isinstance(value, str) else text)
    return ",".join(cells).encode("utf-8", "surrogatepass")  # of file names that are not UTF-8


def _parse_row(row: bytes) -> Result:
    text = row.decode("utf-8", "surrogatepass")
    cells = [quoted.replace('""', '"') if quoted else plain for quoted, plain in _CELL.findall(text)]
    if len(cells) != len(_COLUMNS):
        raise ValueError("not a result of this command")
    values: dict[str, object] = {}
    for (name, kind), cell in zip(_COLUMNS, cells, strict=True):
        is_none = not cell and kind == str | None
        values[name] = None if is_none else cell if kind in (str, str | None) else kind(cell)  # type: ignore[operator]
    if values["error"] is None:
        values["text"] = values["text"] or ""  # an empty answer
    return parse_line(json.dumps(values).encode())


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    yield from enumerate(file, 1)


def _csv_rows(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Rows; within quotes, a row has line breaks."""
    row, start = b"", 1
    for number, line in enumerate(file, 1):
        row += line
        if row.count(b'"') % 2 == 0:
            yield start, row
            row, start = b"", number + 1
    if row:
        yield start, row


_HEADER = ",".join(name for name, _ in _COLUMNS).encode() + b"\n"
_LAYOUTS = {
    ".jsonl": FileLayout("JSON lines", b"", b"\n", b"\n", _json_line, parse_line, _lines, True, _RECORD),
    ".json": FileLayout("a JSON array", b"[\n", b",\n", b"\n]\n", _json_line, parse_line, _lines, True, _RECORD),
    ".csv": FileLayout("CSV", _HEADER, b"\n", b"\n", _csv_row, _parse_row, _csv_rows, False, b'"'),
}
_LAYOUTS[".ndjson"] = _LAYOUTS[".jsonl"]
