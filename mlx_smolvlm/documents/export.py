"""A document as Markdown, HTML, JSON or DocTags."""

import re
from collections.abc import Sequence
from typing import Literal, get_args

from PIL import Image

from .doctags_writer import write_doctags
from .document_tree import DocumentTree
from .html_page import write_html
from .json_document import write_json_document
from .markdown import write_markdown

ExportFormat = Literal["md", "html", "json", "doctags"]
EXPORT_FORMATS: tuple[str, ...] = get_args(ExportFormat)
_SURROGATE = re.compile("[\ud800-\udfff]")


def export(tree: DocumentTree, to: ExportFormat, page_images: Sequence[Image.Image | None] | None = None) -> str:
    """Write a document.

    Args:
        tree: the document.
        to: "md", "html", "json" or "doctags".
        page_images: one for each page or None, of any size. HTML then holds what images show, cropped from them.

    Returns:
        Text that is always valid UTF-8: half a surrogate pair becomes U+FFFD, in JSON its escape.

    Raises:
        ValueError: another format, or another number of images than of pages.
    """
    if to not in EXPORT_FORMATS:
        raise ValueError(f"no format {to!r}; expected one of {', '.join(EXPORT_FORMATS)}")
    if page_images is not None and len(page_images) != len(tree.pages):
        raise ValueError(
            f"{len(page_images)} page images for a document of {len(tree.pages)} pages; give one for each, or None"
        )
    if to == "json":
        return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", write_json_document(tree))
    if to == "md":
        text = write_markdown(tree)
    elif to == "html":
        text = write_html(tree, page_images)
    else:
        text = write_doctags(tree)
    return _SURROGATE.sub("\ufffd", text)
