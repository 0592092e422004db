"""Tables in OTSL, the table language within DocTags: a token for each cell, `<nl>` after each row.

`fcel` holds text, `ecel` nothing, `ched`, `rhed` and `srow` the header of columns, of a row, of a section; `lcel`,
`ucel` and `xcel` belong to the cell at their left, above them, or both.
"""

from collections.abc import Iterator
from dataclasses import dataclass

CELL_TAGS = ("fcel", "ecel", "lcel", "ucel", "xcel", "ched", "rhed", "srow")
_RIGHT = ("lcel", "xcel")
_DOWN = ("ucel", "xcel")
_COVERED = ("lcel", "ucel", "xcel")


@dataclass(frozen=True, slots=True)
class OtslCell:
    """One token of a table and the text after it.

    Attributes:
        tag: one of `CELL_TAGS`; never `lcel`, `ucel`, `xcel` or `ecel` where there is text.
        text: without white space around it.
        box: left, top, right and bottom, 0 to 500 of the page; None if no place was given.
    """

    tag: str
    text: str = ""
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class SpannedCell:
    """A cell with the rows and columns that it covers.

    Attributes:
        row: the first one, from 0.
        column: the first one, from 0.
        row_span: number of rows, at least 1; none beyond the table's last.
        column_span: number of columns, at least 1.
        cell: the token and its text.
    """

    row: int
    column: int
    row_span: int
    column_span: int
    cell: OtslCell


@dataclass(frozen=True, slots=True)
class DocumentTable:
    """A table as the rows of its tokens. Rows may differ in length: what is missing is empty."""

    rows: tuple[tuple[OtslCell, ...], ...]

    @property
    def num_rows(self) -> int:
        """Number of rows; empty ones do not count."""
        return len(self.rows)

    @property
    def num_columns(self) -> int:
        """Number of tokens of the longest row."""
        return max(map(len, self.rows), default=0)

    def cells(self) -> Iterator[SpannedCell]:
        """The cells with what they cover, row by row. A token that belongs to no cell yields none.

        As in docling-core's `parse_otsl_table_content`, a cell covers the tokens at its right that say so, and those
        below it; two cells may claim the same place.
        """
        for row, tokens in enumerate(self.rows):
            for column, cell in enumerate(tokens):
                if cell.tag in _COVERED:
                    continue
                right = column + 1
                while right < len(tokens) and tokens[right].tag in _RIGHT:
                    right += 1
                below = row + 1
                while below < len(self.rows) and column < len(self.rows[below]):
                    if self.rows[below][column].tag not in _DOWN:
                        break
                    below += 1
                yield SpannedCell(row, column, below - row, right - column, cell)
