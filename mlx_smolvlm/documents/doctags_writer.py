"""A tree as DocTags, every element closed."""

from collections.abc import Iterator

from .document_tree import DocumentElement, DocumentTree
from .otsl import DocumentTable


def write_doctags(tree: DocumentTree) -> str:
    """One `<doctag>` with all pages, `<page_break>` between them. Reading it gives the tree again, closed."""
    pages = ("\n".join("".join(_tagged(element)) for element in page.elements) for page in tree.pages)
    return "<doctag>" + "\n<page_break>\n".join(pages) + "</doctag>"


def _tagged(element: DocumentElement, is_within_code: bool = False) -> Iterator[str]:
    tag = _tag(element)
    yield f"<{tag}>"
    # within code, a place makes it a tag; one number alone makes no box
    yield "<loc_0>" if is_within_code and element.box is None else _located(element.box)
    if element.picture_class:
        yield f"<{element.picture_class}>"
    if element.language:
        yield f"<_{element.language}_>"
    before = element.captions if element.kind != "code" else ()  # in code, tags count before its text only
    for one in before:
        yield from _tagged(one)
    yield element.text
    for number in element.links:
        yield f"<link_{number}>"
    if element.table is not None:
        yield from _otsl(element.table)
    for one in (*element.children, *(() if before else element.captions), *element.footnotes):
        yield from _tagged(one, element.kind == "code")
    yield f"</{tag}>"


def _tag(element: DocumentElement) -> str:
    if element.kind == "section_header":
        return f"section_header_level_{element.level}"
    if element.kind in ("key", "value"):
        return f"{element.kind}_{element.number}"
    return "otsl" if element.kind == "table" else element.kind


def _located(box: tuple[int, int, int, int] | None) -> str:
    return "" if box is None else "".join(f"<loc_{coordinate}>" for coordinate in box)


def _otsl(table: DocumentTable) -> Iterator[str]:
    for row in table.rows:
        for cell in row:
            yield f"<{cell.tag}>{_located(cell.box)}{cell.text}"
        yield "<nl>"
