"""DocTags to a tree, piece by piece, in linear time and without losing text.

Known tags are tags, everything else is text, also between elements: it becomes elements of the kind "text". What is not
closed ends where something begins that cannot stand within it, at a page's end, or at the end of all.
"""

from typing import NamedTuple

from .document_tree import LISTS, PICTURES, TABLES, DocumentElement, DocumentPage, DocumentTree
from .open_elements import OpenElement
from .otsl import CELL_TAGS
from .tags import (
    CONTAINER_TAGS,
    END_TOKENS,
    PICTURE_CLASSES,
    RENAMED_CLASSES,
    TAG,
    TEXT_TAGS,
    WRAPPER_TAGS,
    find_unfinished,
)

MAX_DEPTH = 40  # of elements within elements; the tags of deeper ones are passed over, their text is not
_BLOCK_CHARS = 2**18  # that are taken apart at a time: their parts take many times the memory of the text
_WITHIN_TEXT = {"formula", "code", "text", "paragraph", "reference", "smiles", "handwritten_text",
                "checkbox_selected", "checkbox_unselected"}  # fmt: skip
_BESIDE = {"caption", "footnote"}
_NEVER_WITHIN = {"title", "section_header", "page_header", "page_footer", "picture", "chart", "wrapper"}
_CELLS = frozenset(CELL_TAGS)
_CLASSES = frozenset(PICTURE_CLASSES)
_OTHER = {"nl", "page_break", *END_TOKENS}


class DocTagsParser:
    """Reads DocTags as they come."""

    def __init__(self) -> None:
        self._unread = ""
        self._held: str | None = None  # a tag within code: one only if a location follows
        self._pages: list[DocumentPage] = []
        self._stack = [OpenElement("page", "")]
        self._ended: list[DocumentElement] = []

    @property
    def open_tags(self) -> tuple[str, ...]:
        """Names of the tags that have no end so far, the outermost first."""
        return tuple(element.tag for element in self._stack[1:] if not element.is_implicit)

    def feed(self, piece: str) -> list[DocumentElement]:
        """Read on.

        Returns:
            What ended within this piece, elements within others first.
        """
        for start in range(0, len(piece), _BLOCK_CHARS):
            text = self._unread + piece[start : start + _BLOCK_CHARS]
            end = find_unfinished(text)
            self._unread = text[end:]
            self._read(text[:end])
        ended, self._ended = self._ended, []
        return ended

    def close(self) -> DocumentTree:
        """End what is open.

        Returns:
            The whole document. A text without any tag has one page, as has an empty one.
        """
        self._read(self._unread)
        self._unread = ""
        self._release()
        self._end_page()
        return DocumentTree(tuple(self._pages))

    def _read(self, text: str) -> None:
        first, *others = TAG.split(text)
        if first:
            self._take_text(first)
        for tag, following in zip(others[::2], others[1::2], strict=True):
            self._take_tag(tag)
            if following:
                self._take_text(following)

    def _take_text(self, text: str) -> None:
        self._release()
        top = self._stack[-1]
        parts = top.text_parts
        if parts is None and not text.isspace():
            kind = "list_item" if top.kind in LISTS else "text"
            parts = self._push(OpenElement(kind, kind, is_implicit=True)).parts
        if parts is not None:
            parts.append(text)

    def _take_tag(self, tag: str) -> None:
        if self._stack[-1].is_literal and not self._is_tag_within_code(tag):
            return
        top = self._stack[-1]
        if tag[0] == "/":
            self._end(tag[1:])
        elif tag.startswith("loc_"):
            if top.kind in ("page", "wrapper"):
                top = self._push(OpenElement("text", "text", is_implicit=True))
            top.locate(int(tag[4:]))
        elif tag in _CELLS:
            self._begin_cell(tag)
        elif tag == "nl" and top.holds_cells:
            top.end_row()
        elif tag == "page_break":
            wrappers = [element.tag for element in self._stack if element.kind == "wrapper"]
            self._end_page()
            for name in wrappers:
                self._begin("wrapper", name)
        elif tag in _CLASSES:
            if top.kind in PICTURES:
                top.picture_class = top.picture_class or RENAMED_CLASSES.get(tag, tag)
                top.keep_apart()
            else:
                self._take_text(f"<{tag}>")
        elif tag.startswith("link_"):
            if top.kind in ("key", "value"):
                top.links.append(int(tag[5:]))
            top.keep_apart()
        elif tag in _OTHER or tag.startswith("rec_"):
            self._stack[-1].keep_apart()
        else:
            self._begin(_kind_of(tag), tag)

    def _is_tag_within_code(self, tag: str) -> bool:
        """Code may hold what looks like tags. Places count, those that end it, and what has a place."""
        if tag in ("/code", "/doctag", "page_break", *END_TOKENS):
            self._release()
            return True
        if tag.startswith("loc_"):
            if self._held is not None:
                held, self._held = self._held, None
                if _kind_of(held) not in _BESIDE:
                    self._end_top(is_closed=False)
                self._begin(_kind_of(held), held)
            return True
        self._release()
        if tag in TEXT_TAGS or tag in CONTAINER_TAGS:
            self._held = tag
        else:
            self._take_text(f"<{tag}>")
        return False

    def _release(self) -> None:
        """What was held back is text."""
        if self._held is not None:
            held, self._held = self._held, None
            self._take_text(f"<{held}>")

    def _begin_cell(self, tag: str) -> None:
        top = self._stack[-1]
        if top.holds_text and not top.is_implicit:
            self._stack[-1].keep_apart()
            return
        if not top.holds_cells:
            while not self._can_hold(self._stack[-1], "table"):
                self._end_top(is_closed=False)
            top = self._push(OpenElement("table", "otsl", is_implicit=True))
        top.begin_cell(tag)

    def _begin(self, kind: str, tag: str) -> None:
        while not self._can_hold(self._stack[-1], kind):
            self._end_top(is_closed=False)
        if kind == "list_item" and self._stack[-1].kind not in LISTS:
            self._push(OpenElement("unordered_list", "unordered_list", is_implicit=True))
        is_again = kind == "wrapper" and any(element.tag == tag for element in self._stack)
        if is_again or len(self._stack) >= MAX_DEPTH:
            self._stack[-1].keep_apart()
            return
        outer = self._stack[-1]
        element = OpenElement(kind, tag)
        element.is_literal = kind == "code" and not (outer.holds_text or outer.kind in TABLES)
        if kind == "wrapper":
            element.children = outer.children
        self._push(element)

    def _can_hold(self, outer: OpenElement, kind: str) -> bool:
        if outer.kind in ("page", "wrapper"):
            return True
        if outer.is_implicit:
            return outer.kind == "unordered_list" and kind == "list_item"
        if outer.kind in LISTS:
            return kind == "list_item" or kind in LISTS
        if outer.kind == "list_item" and kind in LISTS:
            return True
        if outer.kind == "code":
            return kind in _BESIDE
        if outer.holds_text:
            is_within = len(self._stack) > 1 and self._stack[-2].holds_text
            return kind in _WITHIN_TEXT and kind != outer.kind and not is_within
        if outer.kind == "inline":
            return kind in _WITHIN_TEXT
        if outer.kind in TABLES:
            return kind in _WITHIN_TEXT or kind in _BESIDE
        if outer.kind in PICTURES:
            return kind not in _NEVER_WITHIN and kind not in ("key", "value")
        return kind not in _NEVER_WITHIN and kind != outer.kind

    def _end(self, tag: str) -> None:
        """Close the innermost element of that tag, or of its kind; a tag that ends nothing is passed over."""
        family = _family(_kind_of(tag), tag)
        same = [element for element in self._stack[1:] if element.tag == tag]
        alike = [element for element in self._stack[1:] if _family(element.kind, element.tag) == family]
        if not alike:
            self._stack[-1].keep_apart()
            return
        target = (same or alike)[-1]
        while self._stack[-1] is not target and target in self._stack:
            self._end_top(is_closed=False)
        if target in self._stack:
            self._end_top()

    def _end_top(self, is_closed: bool = True) -> None:
        element = self._stack.pop()
        if element.kind == "wrapper":
            return
        ended, taken_out = element.end(is_closed)
        if ended is not None:
            self._ended.append(ended)
            self._stack[-1].add(ended)
        for one in taken_out:
            while not self._can_hold(self._stack[-1], one.kind):
                self._end_top(is_closed=False)
            self._stack[-1].add(one)

    def _end_page(self) -> None:
        while len(self._stack) > 1:
            self._end_top(is_closed=False)
        self._pages.append(DocumentPage(tuple(self._stack[0].children)))
        self._stack = [OpenElement("page", "")]

    def _push(self, element: OpenElement) -> OpenElement:
        self._stack.append(element)
        return element


class ClosedDocTags(NamedTuple):
    """An answer of which everything is closed.

    Attributes:
        text: the answer as it was if nothing was open at its end; otherwise written anew from what it holds.
        open_tags: names of the tags that had no end, the outermost first.
    """

    text: str
    open_tags: tuple[str, ...]

    @property
    def was_cut(self) -> bool:
        """Whether elements were open at the answer's end."""
        return bool(self.open_tags)


def parse_doctags(text: str) -> DocumentTree:
    """Read DocTags, whole.

    Returns:
        The document; `<page_break>` begins the next page.
    """
    parser = DocTagsParser()
    parser.feed(text)
    return parser.close()


def close_doctags(text: str) -> ClosedDocTags:
    """Whether an answer was cut, as by the limit of tokens, and its text with everything closed."""
    from .doctags_writer import write_doctags

    parser = DocTagsParser()
    parser.feed(text)
    open_tags = parser.open_tags
    return ClosedDocTags(write_doctags(parser.close()) if open_tags else text, open_tags)


def _kind_of(tag: str) -> str:
    if tag in WRAPPER_TAGS:
        return "wrapper"
    return TEXT_TAGS.get(tag) or CONTAINER_TAGS.get(tag) or tag.partition("_")[0]


def _family(kind: str, tag: str) -> str:
    """What an end tag may end: lists and headers of all levels go by kind."""
    return "list" if kind in LISTS else tag if kind == "wrapper" else kind
