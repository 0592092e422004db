"""A tree as Markdown. Where docling-core 2.104 loses nothing, it is what docling-core writes, to the character."""

import html
import re
from collections.abc import Iterator

from .document_tree import FURNITURE, LISTS, PICTURES, TABLES, DocumentElement, DocumentTree
from .markdown_tables import markdown_table
from .tags import PICTURE_CLASSES

IMAGE_MARKER = "<!-- image -->"
# docling-core writes what an image shows for these classes only.
NAMED_CLASSES = frozenset(PICTURE_CLASSES) - {
    "cad_drawing", "decoration", "electrical_diagram", "map", "illustration", "infographic", "person",
    "stratigraphic_chart", "ui_element", "other_chart",
}  # fmt: skip
_UNDERSCORE = re.compile(r"(?<!\\)_")


def write_markdown(tree: DocumentTree) -> str:
    """Blocks with an empty line between them. Headers and footers of pages are left out, as are page breaks."""
    elements = (element for page in tree.pages for element in page.elements)
    return "\n\n".join(block for element in elements for block in _blocks(element) if block)


def _blocks(element: DocumentElement) -> Iterator[str]:
    if element.kind in FURNITURE:
        return
    is_code = element.kind in ("code", "formula")
    if not is_code:
        yield _captions(element)
    if element.kind in PICTURES:
        yield from _picture(element)
    elif element.kind in TABLES:
        yield _lines(element.text)
        if element.table is not None:
            yield markdown_table(element.table)
    elif element.kind in LISTS:
        yield "\n".join(_list_lines(element))
    elif element.kind == "inline":
        yield " ".join(part for child in element.children if (part := _leaf(child, is_inline=True)))
    elif element.kind == "key_value_region":
        yield "  \n".join(_pairs(element))
    else:
        yield _leaf(element)
    if is_code:
        yield _captions(element)
    for footnote in element.footnotes:
        yield _lines(footnote.text)


def _captions(element: DocumentElement) -> str:
    return " ".join(_lines(caption.text) for caption in element.captions if caption.text)


def _picture(element: DocumentElement) -> Iterator[str]:
    if element.box is not None or any(caption.box is not None for caption in element.captions):
        yield IMAGE_MARKER
        if element.picture_class in NAMED_CLASSES:
            yield element.picture_class.replace("_", " ").capitalize()
    if element.table is not None:
        yield markdown_table(element.table)
    yield _lines(element.text)
    for child in element.children:
        yield from _blocks(child)


def _leaf(element: DocumentElement, is_inline: bool = False) -> str:
    text = element.text
    if element.kind == "formula":
        return f"${text}$" if text and is_inline else f"$${text}$$" if text else ""
    if element.kind == "code":
        return _code_span(text) if is_inline else _code_block(text)
    if element.kind == "title":
        return f"# {_escaped(text.replace(chr(10), ' '))}"
    if element.kind == "section_header":
        return f"{'#' * min((element.level or 0) + 1, 6)} {_escaped(text.replace(chr(10), ' '))}"
    if element.kind in ("checkbox_selected", "checkbox_unselected"):
        text = f"- [{'x' if element.kind == 'checkbox_selected' else ' '}] {text}"
    return _lines(text)


def _list_lines(element: DocumentElement) -> Iterator[str]:
    """One for each item; items of lists within it follow on the same level, as docling-core reads them."""
    for number, item in enumerate(list_items(element), 1):
        yield f"{number}. {_lines(item.text)}" if element.kind == "ordered_list" else f"- {_lines(item.text)}"


def list_items(element: DocumentElement) -> Iterator[DocumentElement]:
    """Items of a list and of the lists within it, in the order of the text."""
    for child in element.children:
        if child.kind == "list_item":
            yield child
        yield from list_items(child)


def _pairs(region: DocumentElement) -> Iterator[str]:
    """Keys, each with its values; then what belongs to none."""
    values: dict[int | None, list[DocumentElement]] = {}
    for child in region.children:
        if child.kind == "value":
            values.setdefault(child.number, []).append(child)
    named = {number for child in region.children if child.kind == "key" for number in child.links}
    for child in region.children:
        if child.kind == "key":
            own = [value for number in child.links for value in values.pop(number, [])]  # each once
            belonging = ", ".join(_lines(value.text) for value in own)
            yield f"{_lines(child.text)}: {belonging}" if belonging else _lines(child.text)
        elif child.kind != "value":
            yield from filter(None, _blocks(child))
        elif child.number not in named:
            yield _lines(child.text)


def _code_block(text: str) -> str:
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}\n{text}\n{fence}"


def _code_span(text: str) -> str:
    ticks = "`" * (_longest_run(text) + 1)
    padding = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{padding}{text}{padding}{ticks}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _lines(text: str) -> str:
    """Text with its line breaks; an empty line stays the end of a paragraph."""
    return _escaped("\n\n".join(paragraph.replace("\n", "  \n") for paragraph in text.split("\n\n")))


def _escaped(text: str) -> str:
    return html.escape("".join(_without_emphasis(text)), quote=False)


def _without_emphasis(text: str) -> Iterator[str]:
    """Underscores escaped, but not in what looks like an image, `![...](...)` within one line."""
    done = start = 0
    while (start := text.find("![", start)) >= 0:
        line_end = text.find("\n", start)
        line_end = len(text) if line_end < 0 else line_end
        middle = text.find("](", start + 2, line_end)
        end = text.find(")", middle + 2, line_end) if middle >= 0 else -1
        if end < 0:  # nor does one begin further on in this line
            start = line_end
            continue
        yield _UNDERSCORE.sub(r"\\_", text[done:start])
        yield text[start : end + 1]
        done = start = end + 1
    yield _UNDERSCORE.sub(r"\\_", text[done:])
