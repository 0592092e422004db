"""What a document is made of: pages of elements, in reading order. Every object is frozen."""

from dataclasses import dataclass
from typing import Literal

from .otsl import DocumentTable

ElementKind = Literal[
    "title", "section_header", "text", "paragraph", "reference", "handwritten_text", "caption", "footnote", "formula",
    "code", "page_header", "page_footer", "checkbox_selected", "checkbox_unselected", "smiles", "list_item",
    "unordered_list", "ordered_list", "inline", "picture", "chart", "table", "document_index", "key_value_region",
    "key", "value",
]  # fmt: skip
LISTS = ("unordered_list", "ordered_list")
PICTURES = ("picture", "chart")
TABLES = ("table", "document_index")
FURNITURE = ("page_header", "page_footer")  # around the content of a page


@dataclass(frozen=True, slots=True)
class DocumentElement:
    """A part of a page.

    Attributes:
        kind: what it is; the names are docling's labels where docling has the same.
        text: its text, without white space around it. Of a table, what stands in no cell.
        box: left, top, right and bottom, 0 to 500 of the page from its top left corner; None if no place was given.
        level: of a section header, from 1; the title of the document is above it.
        language: of code, as the model named it; "" if it did not.
        picture_class: of an image or chart, such as "bar_chart"; "" if the model named none.
        table: the cells of a table, or the values of a chart.
        captions: elements of the kind "caption" that belong to this one.
        footnotes: elements of the kind "footnote" that belong to this one.
        children: what a list holds, lists within a list item, the parts of "inline", and what stands within an image.
        number: by which the `links` of another element name a key or value.
        links: of a key or value, the numbers of those that belong to it.
        is_closed: False if its end tag was missing, as where an answer was cut.
    """

    kind: ElementKind
    text: str = ""
    box: tuple[int, int, int, int] | None = None
    level: int | None = None
    language: str = ""
    picture_class: str = ""
    table: DocumentTable | None = None
    captions: tuple["DocumentElement", ...] = ()
    footnotes: tuple["DocumentElement", ...] = ()
    children: tuple["DocumentElement", ...] = ()
    number: int | None = None
    links: tuple[int, ...] = ()
    is_closed: bool = True


@dataclass(frozen=True, slots=True)
class DocumentPage:
    """A page.

    Attributes:
        elements: in reading order.
        number: of the page in its file, where that is known; otherwise pages are counted.
    """

    elements: tuple[DocumentElement, ...] = ()
    number: int | None = None


@dataclass(frozen=True, slots=True)
class DocumentTree:
    """A document: its pages, the first first."""

    pages: tuple[DocumentPage, ...] = ()


def joined_trees(trees: list[DocumentTree]) -> DocumentTree:
    """One document of the pages of several."""
    return DocumentTree(tuple(page for tree in trees for page in tree.pages))
