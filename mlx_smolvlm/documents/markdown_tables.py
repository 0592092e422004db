"""Tables as Markdown, laid out as docling-core 2.104 does with tabulate's format "github"."""

import math
import re

from .otsl import DocumentTable

MIN_PADDING = 2  # of a column beyond its header
# What padding and the repetition of spanning cells may add: this many times the text, and as many characters.
MAX_GROWTH = 20
FREE_CHARS = 200_000
_THOUSANDS = re.compile(r"([+-]?[0-9]{1,3}(?:,[0-9]{3})*(?:\.[0-9]*)?|\.[0-9]+)$")


def markdown_table(table: DocumentTable) -> str:
    """The table, its first row the header. A cell that spans several places is repeated in each.

    Where padding or repetition would make it many times as long as its text, it is written without.
    """
    if not table.rows:
        return ""
    size = sum(len(cell.text) + 1 for row in table.rows for cell in row)
    limit = MAX_GROWTH * size + FREE_CHARS
    if table.num_rows * table.num_columns > limit:
        return _compact([[_escaped(cell.text) for cell in row] for row in table.rows], table.num_columns)
    grid = _grid(table, limit)
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    if sum(widths) * len(grid) > limit:
        return _compact(grid, table.num_columns)
    return _padded(grid)


def _grid(table: DocumentTable, limit: int) -> list[list[str]]:
    """Rows of equal length, the text of each place."""
    num_columns = table.num_columns
    grid = [[""] * num_columns for _ in table.rows]
    left = limit
    for spanned in table.cells():
        text = _escaped(spanned.cell.text)
        left -= spanned.row_span * spanned.column_span * (len(text) + 1)
        rows, columns = (spanned.row_span, spanned.column_span) if left >= 0 else (1, 1)
        for row in range(spanned.row, spanned.row + rows):
            for column in range(spanned.column, spanned.column + columns):
                grid[row][column] = text
    return grid


def _padded(grid: list[list[str]]) -> str:
    header, *body = grid
    lines: list[list[str]] = [[] for _ in grid]
    rule = []
    for column, title in enumerate(header):
        cells = [row[column].strip() for row in body]
        width = max(len(title) + MIN_PADDING, *map(len, cells), 0)
        is_right = _is_numeric([row[column] for row in body])
        for line, cell in zip(lines, [title, *cells], strict=True):
            line.append(cell.rjust(width) if is_right else cell.ljust(width))
        rule.append("-" * (width + 2))
    rows = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([rows[0], "|" + "|".join(rule) + "|", *rows[1:]])


def _compact(rows: list[list[str]], num_columns: int) -> str:
    header = rows[0] + [""] * (num_columns - len(rows[0]))
    lines = ["| " + " | ".join(row) + " |" for row in [header, *rows[1:]]]
    return "\n".join([lines[0], "|" + "-|" * num_columns, *lines[1:]])


def _escaped(text: str) -> str:
    """`<` becomes its entity, so that no cell is taken for HTML; docling-core loses such text."""
    return text.replace("<", "&lt;").replace("\r", " ").replace("\n", " ").replace("|", "&#124;")


def _is_numeric(cells: list[str]) -> bool:
    """Whether a column holds numbers and nothing else, as tabulate's `_column_type` sees it."""
    filled = [cell for cell in cells if cell]
    is_number = [_is_number(cell) for cell in filled if cell not in ("True", "False")]
    return bool(is_number) and all(is_number)


def _is_number(text: str) -> bool:
    if _THOUSANDS.match(text):
        return True
    try:
        int(text)
        return True
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return False
    return math.isfinite(number) or text.lower() in ("inf", "-inf", "nan")
