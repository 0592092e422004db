"""A tree as one HTML file that needs no other. All text is escaped; there is no script."""

import base64
import html
import io
from collections.abc import Iterator, Sequence

from PIL import Image

from .document_tree import FURNITURE, LISTS, PICTURES, TABLES, DocumentElement, DocumentTree
from .open_elements import MAX_COORDINATE
from .otsl import DocumentTable

_STYLE = """
body { font-family: sans-serif; line-height: 1.5; max-width: 50em; margin: 2em auto; padding: 0 1em; }
section + section { border-top: 1px solid #ccc; margin-top: 2em; padding-top: 1em; }
p, li, td, th, figcaption, h1, h2, h3, h4, h5, h6 { white-space: pre-line; overflow-wrap: anywhere; }
pre { background: #f4f4f4; padding: .8em; overflow-x: auto; }
.formula { text-align: center; white-space: pre-wrap; }
table { border-collapse: collapse; margin: 1em 0; }
td, th { border: 1px solid #999; padding: .2em .6em; text-align: left; }
figure { margin: 1em 0; }
figure img { max-width: 100%; }
figcaption, .footnote { font-size: .9em; color: #444; }
"""
_HEADINGS = 6
_MAX_SPAN = 1000  # of columns, by the HTML standard; of rows it is 65534


def write_html(tree: DocumentTree, page_images: Sequence[Image.Image | None] | None = None) -> str:
    """A page that shows the document; headers and footers of pages are left out, as in Markdown.

    Args:
        tree: the document.
        page_images: one for each page, or None where there is none; what an image shows is cropped from them.
    """
    title = next(
        (element.text for page in tree.pages for element in page.elements if element.kind == "title"), "Document"
    )
    pieces = [
        f'<!DOCTYPE html>\n<html>\n<head>\n<meta charset="utf-8">\n<title>{_text(" ".join(title.split()))}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>"
    ]
    for number, page in enumerate(tree.pages):
        image = None if page_images is None else page_images[number]
        pieces.append(f'<section id="page-{page.number or number + 1}">')
        pieces += ["".join(_element(element, image)) for element in page.elements if element.kind not in FURNITURE]
        pieces.append("</section>")
    return "\n".join([*pieces, "</body>\n</html>"])


def _element(element: DocumentElement, image: Image.Image | None) -> Iterator[str]:
    text = _text(element.text)
    if element.kind in PICTURES:
        yield from _figure(element, image)
    elif element.kind in TABLES:
        if text:
            yield f'<p dir="auto">{text}</p>'
        yield from _table(element.table, _captions(element, "caption"))
    elif element.kind in LISTS:
        name = "ol" if element.kind == "ordered_list" else "ul"
        yield f"<{name}>"
        for child in element.children:
            is_item = child.kind == "list_item"
            yield "" if is_item else '<li style="list-style: none">'  # a list may hold nothing but items
            yield from _element(child, image)
            yield "" if is_item else "</li>"
        yield f"</{name}>"
    elif element.kind == "list_item":
        yield f'<li dir="auto">{text}'
        for child in element.children:
            yield from _element(child, image)
        yield "</li>"
    elif element.kind == "inline":
        yield f'<p dir="auto">{" ".join(map(_within_line, element.children))}</p>'
    elif element.kind == "key_value_region":
        yield "<dl>"
        for child in element.children:
            yield f'<{_pair_tag(child)} dir="auto">{"".join(_element(child, image))}</{_pair_tag(child)}>'
        yield "</dl>"
    elif element.kind == "code":
        yield f"<pre><code{_language(element)}>{text}</code></pre>"
        yield _captions(element, "p")
    elif element.kind == "formula":
        yield f'<p class="formula"><code>{text}</code></p>'
    elif element.kind == "title":
        yield f'<h1 dir="auto">{text}</h1>'
    elif element.kind == "section_header":
        level = min((element.level or 0) + 1, _HEADINGS)
        yield f'<h{level} dir="auto">{text}</h{level}>'
    elif element.kind in ("key", "value"):
        yield text
    else:
        name = ' class="footnote"' if element.kind == "footnote" else ""
        yield f'<p dir="auto"{name}>{_within_line(element)}</p>'
    for footnote in element.footnotes:
        yield f'<p dir="auto" class="footnote">{_text(footnote.text)}</p>'


def _within_line(element: DocumentElement) -> str:
    text = _text(element.text)
    if element.kind in ("formula", "code"):
        return f"<code>{text}</code>"
    if element.kind in ("checkbox_selected", "checkbox_unselected"):
        return f'<input type="checkbox" disabled{" checked" * (element.kind == "checkbox_selected")}> {text}'
    return text


def _figure(element: DocumentElement, image: Image.Image | None) -> Iterator[str]:
    yield "<figure>"
    if url := _cropped(element, image):
        yield f'<img alt="" src="{url}">'
    yield _captions(element, "figcaption")
    if element.picture_class:
        yield f"<p>{_text(element.picture_class.replace('_', ' ').capitalize())}</p>"
    if element.table is not None:
        yield from _table(element.table, "")
    if element.text:
        yield f'<p dir="auto">{_text(element.text)}</p>'
    for child in element.children:
        yield from _element(child, image)
    yield "</figure>"


def _cropped(element: DocumentElement, image: Image.Image | None) -> str:
    """What the element's box shows, as a data URL; "" if there is nothing to show."""
    if image is None or element.box is None:
        return ""
    width, height = image.size
    left, top, right, bottom = element.box
    pixels = (
        left * width // MAX_COORDINATE,
        top * height // MAX_COORDINATE,
        -(-right * width // MAX_COORDINATE),
        -(-bottom * height // MAX_COORDINATE),
    )
    if pixels[0] >= pixels[2] or pixels[1] >= pixels[3]:
        return ""
    file = io.BytesIO()
    image.crop(pixels).convert("RGB").save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _table(table: DocumentTable | None, caption: str) -> Iterator[str]:
    yield f"<table>{caption}"
    row = -1
    for spanned in () if table is None else table.cells():
        while row < spanned.row:
            yield "<tr>" if row < 0 else "</tr><tr>"
            row += 1
        name = "th" if spanned.cell.tag in ("ched", "rhed", "srow") else "td"
        rows = f' rowspan="{spanned.row_span}"' if spanned.row_span > 1 else ""
        columns = f' colspan="{min(spanned.column_span, _MAX_SPAN)}"' if spanned.column_span > 1 else ""
        yield f'<{name} dir="auto"{rows}{columns}>{_text(spanned.cell.text)}</{name}>'
    yield "</tr></table>" if row >= 0 else "</table>"


def _captions(element: DocumentElement, tag: str) -> str:
    text = " ".join(_text(caption.text) for caption in element.captions if caption.text)
    return f'<{tag} dir="auto">{text}</{tag}>' if text else ""


def _pair_tag(element: DocumentElement) -> str:
    return "dt" if element.kind == "key" else "dd"


def _language(element: DocumentElement) -> str:
    return f' class="language-{_text("-".join(element.language.lower().split()))}"' if element.language else ""


def _text(text: str) -> str:
    return html.escape(text.replace("\0", "\ufffd"))
