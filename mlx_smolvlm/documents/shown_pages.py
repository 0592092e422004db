"""Page images with the boxes of what was found on them, and one HTML file to look through."""

import html
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..files import whole_folder
from .document_tree import DocumentElement, DocumentTree
from .open_elements import MAX_COORDINATE

_GENERATOR = '<meta name="generator" content="mlx-smolvlm document --show">'
_INDEX = "index.html"
SUFFIX = ".shown"  # of the folders
_TEXT_CHARS = 200  # of an element that the list beside a page shows
_COLORS = {
    "title": "#b71c1c",
    "section_header": "#d84315",
    "caption": "#6a1b9a",
    "footnote": "#6a1b9a",
    "formula": "#00695c",
    "code": "#00695c",
    "list_item": "#1565c0",
    "picture": "#ef6c00",
    "chart": "#ef6c00",
    "table": "#2e7d32",
    "page_header": "#757575",
    "page_footer": "#757575",
}
_OTHER_COLOR = "#1a237e"
_STYLE = """
body { font-family: sans-serif; margin: 2em; }
section { display: flex; gap: 2em; align-items: flex-start; border-top: 1px solid #ccc; padding: 1em 0; }
img { width: 45%; min-width: 20em; border: 1px solid #ccc; }
ol { flex: 1; font-size: .9em; } li { overflow-wrap: anywhere; } b { font-weight: 600; }
"""


def write_shown_pages(folder: Path, title: str, tree: DocumentTree, page_images: Sequence[Image.Image | None]) -> None:
    """Write a folder of PNG files, one for each page, and `index.html`, which shows them with what was read.

    Args:
        folder: appears whole or not at all; it replaces only what this function has written.
        title: of the HTML file.
        tree: the document.
        page_images: one for each page, or None where there is none; they are taken one at a time.

    Raises:
        FileExistsError: something else has the folder's name.
    """
    with whole_folder(folder, check_shown_pages) as made:
        parts = [
            f'<!DOCTYPE html>\n<html>\n<head>\n<meta charset="utf-8">\n{_GENERATOR}\n'
            f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{html.escape(title)}</h1>"
        ]
        for index, page in enumerate(tree.pages):
            number = page.number or index + 1
            elements = list(_walk(page.elements))
            name = f"{number:04d}.png"
            shown = ""
            if (image := page_images[index]) is not None:
                _with_boxes(image, elements).save(made / name)
                shown = f'<img alt="page {number}" src="{name}" loading="lazy">'
            items = "".join(
                f'<li><b style="color: {_color(element)}">{element.kind}</b> {html.escape(_short(element))}</li>'
                for element in elements
            )
            parts.append(f'<h2 id="page-{number}">Page {number}</h2><section>{shown}<ol>{items}</ol></section>')
        text = "\n".join([*parts, "</body>\n</html>\n"])
        (made / _INDEX).write_text(text.replace("\0", "\ufffd"), encoding="utf-8", errors="replace")


def check_shown_pages(folder: Path) -> None:
    """Raise FileExistsError if `folder` is there, and is not one that `write_shown_pages` has written."""
    if not folder.exists() and not folder.is_symlink():
        return
    index = folder / _INDEX
    is_own = index.is_file() and _GENERATOR in index.read_text(encoding="utf-8", errors="replace")[:1000]
    if not is_own or not all(path.name == _INDEX or path.suffix == ".png" for path in folder.iterdir()):
        raise FileExistsError(f"{folder} exists already and is no folder of shown pages; move it away")


def is_shown_page(path: Path) -> bool:
    """Whether a file lies in a folder of shown pages, and so is no document of its own."""
    return path.parent.suffix == SUFFIX and (path.parent / _INDEX).is_file()


def _walk(elements: Sequence[DocumentElement]) -> Iterator[DocumentElement]:
    """Elements with those that belong to them, in reading order."""
    for element in elements:
        yield element
        yield from _walk([*element.captions, *element.children, *element.footnotes])


def _with_boxes(image: Image.Image, elements: Sequence[DocumentElement]) -> Image.Image:
    """A copy of a page with a box and a number for each element that has a place."""
    drawn = image.convert("RGB")
    drawn = drawn.copy() if drawn is image else drawn
    draw = ImageDraw.Draw(drawn)
    line = max(1, max(image.size) // 600)
    font = ImageFont.load_default(size=max(8, max(image.size) // 90))
    for number, element in enumerate(elements, 1):
        if element.box is None:
            continue
        left, top, right, bottom = (
            place * side / MAX_COORDINATE for place, side in zip(element.box, image.size * 2, strict=True)
        )
        draw.rectangle((left, top, right, bottom), outline=_color(element), width=line)
        place = draw.textbbox((left, top), str(number), font=font)
        draw.rectangle(place, fill=_color(element))
        draw.text((left, top), str(number), fill="white", font=font)
    return drawn


def _color(element: DocumentElement) -> str:
    return _COLORS.get(element.kind, _OTHER_COLOR)


def _short(element: DocumentElement) -> str:
    text = " ".join(element.text.split())
    if not text and element.table is not None:
        text = " | ".join(spanned.cell.text for spanned in element.table.cells())
    return text if len(text) <= _TEXT_CHARS else f"{text[:_TEXT_CHARS]}..."
