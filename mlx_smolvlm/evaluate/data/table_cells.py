"""Tables of VLMEvalKit (TSV, CSV): records whose large cells stay in the file.

A table of a benchmark may hold gigabytes of images in base64, and single cells of more than 100 MB. So files are mapped
into memory, cells are found by their separators, and only texts are decoded; an image is read when its row is asked.
"""

import mmap
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_QUOTE = b'"'
_BOM = b"\xef\xbb\xbf"
# What pandas takes for an empty cell, and VLMEvalKit with it.
MISSING = frozenset(
    {
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
        *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    }
)
_MAX_DIGITS = 1000  # more are no number, but text
_WHOLE = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)  # full-width figures stay text
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*|\s*[+-]?(inf|infinity)\s*", re.IGNORECASE | re.ASCII)
_TRUE, _FALSE = {"True", "TRUE", "true"}, {"False", "FALSE", "false"}


@dataclass(frozen=True)
class TableCell:
    """A cell that stays in its file: bytes `start` to `stop`, without the quotes around it."""

    path: Path
    start: int
    stop: int
    is_quoted: bool

    def read(self) -> str:
        """Its text. Raises ValueError if the file has changed so that it is no text any more."""
        with open(self.path, "rb") as file:
            content = os.pread(file.fileno(), self.stop - self.start, self.start)
        return _text(content, self.is_quoted)

    def ends(self) -> tuple[str, str]:
        """Its first and its last character."""
        with open(self.path, "rb") as file:
            first, last = (os.pread(file.fileno(), 1, place) for place in (self.start, self.stop - 1))
        return first.decode("latin-1"), last.decode("latin-1")


def read_table(
    path: Path, delimiter: str, kept: Collection[str], largest_text: int
) -> Iterator[tuple[int, dict[str, str | TableCell]]]:
    """The records of a table, numbered from 1 as the first one after the line with the columns' names.

    Args:
        path: the file, UTF-8 with or without a byte-order mark; quoted cells may hold line breaks.
        delimiter: what separates cells.
        kept: columns whose cells stay in the file where they are longer than `largest_text`.
        largest_text: bytes.

    Raises:
        ValueError: no columns, a column twice, a record of another number of cells, a quote that is never closed, or
            text that is not UTF-8.
    """
    size = path.stat().st_size
    if not size:
        raise ValueError(f"{path} is empty; expected a line with the names of the columns")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        position = len(_BOM) if content[: len(_BOM)] == _BOM else 0
        separators = re.compile(b"[" + re.escape(delimiter.encode()) + b"\r\n]")
        columns: list[str] | None = None
        number = 0
        while position < size:
            where = f"{path}, row {number}" if columns is not None else f"{path}, the names of the columns"
            spans, position = _record(content, position, separators, where)
            if len(spans) == 1 and spans[0][0] == spans[0][1] and not spans[0][2]:
                continue  # an empty line
            try:
                if columns is None:
                    columns = [_text(content[start:stop], quoted).strip() for start, stop, quoted in spans]
                    _check_columns(columns, path)
                    number = 1
                    continue
                if len(spans) != len(columns):
                    raise ValueError(f"has {len(spans)} cells, expected {len(columns)}, one per column")
                record: dict[str, str | TableCell] = {}
                for name, (start, stop, quoted) in zip(columns, spans, strict=True):
                    is_kept = name in kept and stop - start > largest_text
                    record[name] = (
                        TableCell(path, start, stop, quoted) if is_kept else _text(content[start:stop], quoted)
                    )
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
            yield number, record
            number += 1


def _record(
    content: mmap.mmap, position: int, separators: re.Pattern[bytes], where: str
) -> tuple[list[tuple[int, int, bool]], int]:
    """The cells of one record, as (start, stop, is quoted), and where the next record begins."""
    spans: list[tuple[int, int, bool]] = []
    size = len(content)
    while True:
        start, is_quoted = position, content[position : position + 1] == _QUOTE
        if is_quoted:
            start = stop = position + 1
            while True:
                stop = content.find(_QUOTE, stop)
                if stop < 0:
                    raise ValueError(f"{where}: a cell's quote is never closed")
                if content[stop + 1 : stop + 2] != _QUOTE:
                    break
                stop += 2
            position = stop + 1
        found = separators.search(content, position)
        end = found.start() if found else size
        if is_quoted and end != position:
            raise ValueError(f"{where}: text follows a cell's closing quote")
        spans.append((start, stop if is_quoted else end, is_quoted))
        if found is None:
            return spans, size
        position = end + 1
        if found[0] == b"\r" and content[position : position + 1] == b"\n":
            position += 1
        if found[0] in b"\r\n":
            return spans, position
        if position == size:  # a separator ends the file: an empty cell follows it
            spans.append((size, size, False))
            return spans, size


def _check_columns(columns: list[str], path: Path) -> None:
    twice = {name for name in columns if columns.count(name) > 1}
    if twice:
        raise ValueError(f"the column {sorted(twice)[0]!r} stands there twice; rename or remove one")
    if len(columns) < 2:
        raise ValueError(f"has the only column {columns[0][:80]!r}; is {path.name} separated by something else?")


def _text(content: bytes, is_quoted: bool) -> str:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("a cell is not UTF-8 text") from None
    return text.replace('""', '"') if is_quoted else text


def as_pandas_reads(cells: Sequence[str]) -> list[str | None]:
    """A column as VLMEvalKit has it: read by pandas and turned into text again; None for empty cells.

    Where all of a column's values are numbers, they come out as pandas writes numbers: "007" as "7", and "3" as "3.0"
    if the column has an empty cell or a fraction.
    """
    values = [None if cell in MISSING else cell for cell in cells]
    given = [value for value in values if value is not None]
    if not given or max(map(len, given)) > _MAX_DIGITS:
        return values
    whole = [int(value) for value in given if _WHOLE.fullmatch(value)]
    is_large = not all(-(2**63) <= value < 2**64 for value in whole)
    if len(whole) == len(given):
        if len(given) == len(values) or is_large:
            return [None if value is None else str(int(value)) for value in values]
        return [None if value is None else str(float(int(value))) for value in values]
    if all(_NUMBER.fullmatch(value) for value in given):
        return [None if value is None else str(float(value)) for value in values]
    if all(value in _TRUE | _FALSE for value in given):
        return [None if value is None else str(value in _TRUE) for value in values]
    return values
