"""DocTags to a tree, piece by piece, in linear time and without losing text.

Known tags are tags, everything else is text, also between elements: it becomes elements of the kind "text". What is not
closed ends where something begins that cannot stand within it, at a page's end, or at the end of all.
"""

from typing import NamedTuple

from .document_tree import LISTS, PICTURES, DocumentElement, DocumentPage, DocumentTree
from .open_elements import SEAM, OpenElement
from .otsl import CELL_TAGS
from .tags import (
    CONTAINER_TAGS,
    END_TOKENS,
    NUMBERED_TAGS,
    PICTURE_CLASSES,
    RENAMED_CLASSES,
    TAG,
    TEXT_TAGS,
    WRAPPER_TAGS,
    find_unfinished,
)

MAX_DEPTH = 40  # of elements within elements; the tags of deeper ones are passed over, their text is not
_WITHIN_TEXT = {"formula", "code", "text", "paragraph", "reference", "smiles", "handwritten_text",
                "checkbox_selected", "checkbox_unselected"}  # fmt: skip
_NEVER_WITHIN = {"title", "section_header", "page_header", "page_footer"}  # a picture, table or key-value region
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
        text = self._unread + piece
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
        top = self._stack[-1]
        if top.kind == "code" and not self._is_tag_within_code(tag, top):
            return
        if tag[0] == "/":
            self._end(tag[1:])
        elif tag.startswith("loc_"):
            if top.kind in ("page", "wrapper"):
                top = self._push(OpenElement("text", "text", is_implicit=True))
            self._pass_over()
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
            else:
                self._take_text(f"<{tag}>")
        elif tag.startswith("link_"):
            top.links.append(int(tag[5:]))
        elif tag in _OTHER or tag.startswith("rec_"):
            self._pass_over()
        else:
            self._begin(_kind_of(tag), tag)

    def _is_tag_within_code(self, tag: str, code: OpenElement) -> bool:
        """Code may hold what looks like tags. Those that end it count, a place at its start, and what has a place."""
        if tag in ("/code", "/doctag", "page_break", *END_TOKENS):
            self._release()
            return True
        if tag.startswith("loc_"):
            if self._held is not None:
                held, self._held = self._held, None
                kind = _kind_of(held)
                if kind not in ("caption", "footnote"):
                    self._end_top(is_closed=False)
                self._begin(kind, held)
                return True
            if not any(isinstance(part, str) and not part.isspace() for part in code.parts):
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

    def _pass_over(self) -> None:
        """A tag that says nothing here."""
        if parts := self._stack[-1].text_parts:
            parts.append(SEAM)

    def _begin_cell(self, tag: str) -> None:
        if self._stack[-1].is_implicit and not self._stack[-1].holds_cells:
            self._end_top()
        top = self._stack[-1]
        if not top.holds_cells and top.text_parts is not None:
            self._pass_over()
            return
        if not top.holds_cells:
            top = self._push(OpenElement("table", "otsl", is_implicit=True))
        top.begin_cell(tag)

    def _begin(self, kind: str, tag: str) -> None:
        while not self._can_hold(self._stack[-1], kind):
            self._end_top(is_closed=False)
        if kind == "list_item" and self._stack[-1].kind not in LISTS:
            self._push(OpenElement("unordered_list", "unordered_list", is_implicit=True))
        if len(self._stack) >= MAX_DEPTH:
            self._pass_over()
            return
        element = OpenElement(kind, tag)
        if kind == "wrapper":
            element.children = self._stack[-1].children
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
            return kind in ("caption", "footnote")
        if outer.holds_text:
            is_within = len(self._stack) > 1 and self._stack[-2].holds_text
            return kind in _WITHIN_TEXT and kind != outer.kind and not is_within
        if kind in _NEVER_WITHIN or kind == outer.kind or (kind in NUMBERED_TAGS and outer.kind != "key_value_region"):
            return False
        if outer.kind in PICTURES:
            return kind not in PICTURES
        if outer.kind == "inline":
            return kind in _WITHIN_TEXT
        return (kind not in PICTURES and kind not in LISTS) or outer.kind == "key_value_region"

    def _end(self, tag: str) -> None:
        """Close the innermost element of that tag, or of its kind; a tag that ends nothing is passed over."""
        kind = _kind_of(tag)
        open_ = [(element.tag == tag, _family(element.kind) == _family(kind)) for element in self._stack[1:]]
        for fits in zip(*open_, strict=True):
            if True in fits:
                depth = len(fits) - fits[::-1].index(True)
                while len(self._stack) > depth + 1:
                    self._end_top(is_closed=False)
                self._end_top()
                return
        self._pass_over()

    def _end_top(self, is_closed: bool = True) -> None:
        element = self._stack.pop()
        if element.kind != "wrapper":
            ended = element.end(is_closed)
            self._ended += ended[:1]
            for one in ended:
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


def _family(kind: str) -> str:
    return "list" if kind in LISTS else "wrapper of its name" if kind == "wrapper" else kind
