"""What was read on the pages of one document -> the document in a format that people use."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, overload

from PIL import Image

from .doctags import close_doctags, parse_doctags
from .document_tree import PICTURES, DocumentElement, DocumentPage, DocumentTree
from .export import ExportFormat, export
from .page_file import PageFile
from .page_files import PageSource, open_pages
from .page_reading import PageReading
from .tasks import PageTask


def tree_of(readings: Sequence[PageReading]) -> DocumentTree:
    """A tree with one page for each reading; a page that was not read is empty."""
    pages = []
    for reading in readings:
        parts = parse_doctags(reading.doctags).pages  # several where the model wrote <page_break> within a page
        elements = tuple(element for part in parts for element in part.elements)
        pages.append(DocumentPage(elements, reading.number))
    return DocumentTree(tuple(pages))


def exported(readings: Sequence[PageReading], to: ExportFormat, images: "PageImages | None" = None) -> str:
    """A document as text, with a newline at its end.

    Args:
        readings: of all its pages, in order.
        to: "md", "html", "json" or "doctags". DocTags are the model's own, with what was open at a page's end closed.
        images: of its pages, for what images in HTML show.
    """
    if to == "doctags":
        texts = [close_doctags(reading.doctags).text or "<doctag></doctag>" for reading in readings]
        joined = "\n<page_break>\n".join(texts) + "\n"
        return joined.encode("utf-8", "replace").decode()
    tree = tree_of(readings)
    if images is None or to != "html":
        return export(tree, to) + "\n"
    images.wanted = {number for number, page in enumerate(tree.pages) if any(map(_shows_image, page.elements))}
    return export(tree, to, images) + "\n"


def _shows_image(element: DocumentElement) -> bool:
    return element.kind in PICTURES or any(map(_shows_image, element.children))


class PageImages(Sequence[Image.Image | None]):
    """The images of a document's pages as the model saw them, rendered when they are asked for. Close it when done.

    Attributes:
        wanted: indices of the pages that are rendered; others, and those that cannot be, are None.
    """

    def __init__(
        self,
        source: PageSource,
        numbers: Sequence[int],
        scale: float,
        task: PageTask,
        limits: Mapping[str, Any] | None = None,
    ):
        """`numbers` of the pages in the file, from 1; `limits`: more arguments of `open_pages`."""
        self._source, self._numbers, self._scale, self._task = source, numbers, scale, task
        self._limits = limits or {}
        self._opened = ExitStack()
        self._pages: PageFile | None = None
        self.wanted: set[int] = set(range(len(numbers)))

    def __enter__(self) -> "PageImages":
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Image.Image | None: ...
    @overload
    def __getitem__(self, index: slice) -> list[Image.Image | None]: ...
    def __getitem__(self, index: int | slice) -> Image.Image | list[Image.Image | None] | None:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        if index not in self.wanted:
            return None
        try:
            if self._pages is None:
                self._pages = self._opened.enter_context(open_pages(self._source, **self._limits))
            return self._task.shown(self._pages.image(self._numbers[index], self._scale))
        except (ValueError, OSError, MemoryError):  # said when the page was read
            return None

    def __iter__(self) -> Iterator[Image.Image | None]:
        return (self[index] for index in range(len(self)))
