"""Elements of DocTags while they are being read, and what becomes of them at their end."""

import re
from typing import TypeAlias

from .document_tree import LISTS, PICTURES, TABLES, DocumentElement, ElementKind
from .otsl import DocumentTable, OtslCell

MAX_COORDINATE = 500  # of a page's width and height
SEAM = None  # between two texts that a tag stood between
Part: TypeAlias = str | DocumentElement | None
_LANGUAGE = re.compile(r"<_([^<>]+)_>")
_EMPTY_CELLS = {tag: OtslCell(tag) for tag in ("fcel", "ecel", "lcel", "ucel", "xcel", "ched", "rhed", "srow")}
_TEXTLESS = ("ecel", "lcel", "ucel", "xcel")
_OF_PICTURES = ("table", "document_index", "smiles")  # stays within an image of which the end is missing


class OpenElement:
    """An element of which the end has not been read.

    Args:
        kind: of the element; "page" for what is on a page and in no element.
        tag: that began it.
        is_implicit: no tag began it. It ends where anything else begins.
    """

    def __init__(self, kind: str, tag: str, is_implicit: bool = False):
        self.kind, self.tag, self.is_implicit = kind, tag, is_implicit
        self.parts: list[Part] = []
        self.locations: list[int] = []
        self.children: list[DocumentElement] = []
        self.captions: list[DocumentElement] = []
        self.footnotes: list[DocumentElement] = []
        self.is_literal = False  # whether it may hold what only looks like tags
        self.picture_class = ""
        self.links: list[int] = []
        self._rows: list[tuple[OtslCell, ...]] = []
        self._row: list[OtslCell] = []
        self._cell: OpenCell | None = None
        self._holds_elements = False  # within its text or a cell's
        self.holds_cells = kind in TABLES or kind in PICTURES
        self.holds_text = not (self.holds_cells or kind in (*LISTS, "page", "wrapper", "inline", "key_value_region"))

    @property
    def text_parts(self) -> list[Part] | None:
        """Where text goes; None if it needs an element of its own."""
        if self._cell is not None:
            return self._cell.parts
        return self.parts if self.holds_text or self.holds_cells else None

    @property
    def has_open_row(self) -> bool:
        """Whether a table's row has cells, and its end has not been read."""
        return bool(self._row) or self._cell is not None

    def locate(self, coordinate: int) -> None:
        """Take one of the four numbers of a box; what is beyond the page is moved to its edge."""
        self.keep_apart()
        locations = self.locations if self._cell is None else self._cell.locations
        if len(locations) < 4:
            locations.append(min(max(coordinate, 0), MAX_COORDINATE))

    def begin_cell(self, tag: str) -> None:
        """Begin a table's next cell."""
        self._end_cell()
        self.keep_apart()
        self._cell = OpenCell(tag)

    def end_row(self) -> None:
        """End a table's row; one without cells does not count."""
        self._end_cell()
        self.keep_apart()
        if self._row:
            self._rows.append(tuple(self._row))
            self._row = []

    def keep_apart(self) -> None:
        """What follows is not of the same word as what is before."""
        parts = self.text_parts
        if parts and parts[-1] is not SEAM:
            parts.append(SEAM)

    def add(self, element: DocumentElement) -> None:
        """Take in an element that has ended."""
        if element.kind in ("caption", "footnote") and (self.holds_cells or self.kind == "code"):
            (self.captions if element.kind == "caption" else self.footnotes).append(element)
        elif self.holds_text and not (self.kind == "list_item" and element.kind in LISTS):
            self._holds_elements = True
            self.parts.append(element)
        elif self.kind in TABLES:
            self._holds_elements = True
            (self.parts if self._cell is None else self._cell.parts).append(element)
        else:
            self.children.append(element)
        self.keep_apart()

    def end(self, is_closed: bool) -> tuple[DocumentElement | None, list[DocumentElement]]:
        """The element, None of an implicit one that is empty; and what stood within it only as its end was missing."""
        taken_out: list[DocumentElement] = []
        if not is_closed:
            if self._holds_elements:
                taken_out = self._take_out()
            elif self.kind in PICTURES:
                taken_out = [child for child in self.children if child.kind not in _OF_PICTURES]
                self.children = [child for child in self.children if child.kind in _OF_PICTURES]
        if self.holds_cells:
            self.end_row()
        text, language = joined(self.parts), ""
        if self.kind == "code" and (named := _LANGUAGE.match(text)):
            text, language = text[named.end() :], named[1]
        if self.is_implicit and not (text or self.children or self._rows):
            return None, taken_out
        has_number = self.kind in ("section_header", "key", "value")
        number = int(self.tag.rpartition("_")[2]) if has_number else None
        element = DocumentElement(
            _kind(self.kind),
            text,
            box(self.locations),
            level=number if self.kind == "section_header" else None,
            language=language,
            picture_class=self.picture_class,
            table=DocumentTable(tuple(self._rows)) if self.kind in TABLES or self._rows else None,
            captions=tuple(self.captions),
            footnotes=tuple(self.footnotes),
            children=tuple(self.children),
            number=None if self.kind == "section_header" else number,
            links=tuple(self.links),
            is_closed=is_closed or self.is_implicit,
        )
        return element, taken_out

    def _take_out(self) -> list[DocumentElement]:
        """Elements within the text, and the text behind them."""
        parts = self.parts if self._cell is None else self._cell.parts
        first = next((at for at, part in enumerate(parts) if isinstance(part, DocumentElement)), len(parts))
        taken: list[DocumentElement] = []
        texts: list[Part] = []
        for part in parts[first:]:
            if isinstance(part, DocumentElement):
                taken += _as_element(texts)
                taken.append(part)
                texts = []
            else:
                texts.append(part)
        del parts[first:]
        return taken + _as_element(texts)

    def _end_cell(self) -> None:
        if self._cell is not None:
            self._row.append(self._cell.end())
            self._cell = None


class OpenCell:
    """A table's cell while it is being read."""

    __slots__ = ("locations", "parts", "tag")

    def __init__(self, tag: str):
        self.tag = tag
        self.parts: list[Part] = []
        self.locations: list[int] = []

    def end(self) -> OtslCell:
        """The cell. One that should be empty and is not holds text as others do."""
        text = joined(self.parts)
        if not text and not self.locations:
            return _EMPTY_CELLS[self.tag]
        return OtslCell("fcel" if text and self.tag in _TEXTLESS else self.tag, text, box(self.locations))


def joined(parts: list[Part]) -> str:
    """Text without white space around it. Where a tag stood, words are kept apart."""
    if len(parts) == 1 and isinstance(parts[0], str):
        return parts[0].strip()
    text: list[str] = []
    is_seam = False
    for part in parts:
        piece = whole_text(part) if isinstance(part, DocumentElement) else part or ""
        is_seam |= not isinstance(part, str)
        if not piece:
            continue
        if is_seam and text and not text[-1][-1].isspace() and not piece[0].isspace():
            text.append(" ")
        text.append(piece)
        is_seam = isinstance(part, DocumentElement)
    return "".join(text).strip()


def whole_text(element: DocumentElement) -> str:
    """The text of an element and of all within it."""
    cells = () if element.table is None else (cell.text for row in element.table.rows for cell in row)
    inner = (whole_text(one) for one in (*element.captions, *element.footnotes, *element.children))
    return " ".join(filter(None, (element.text, *cells, *inner)))


def box(locations: list[int]) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom in this order; None of fewer than four numbers."""
    if len(locations) < 4:
        return None
    left, top, right, bottom = locations[:4]
    return min(left, right), min(top, bottom), max(left, right), max(top, bottom)


def _as_element(texts: list[Part]) -> list[DocumentElement]:
    text = joined(texts)
    return [DocumentElement("text", text)] if text else []


def _kind(kind: str) -> ElementKind:
    return kind  # type: ignore[return-value]  # from the tables of `tags`
