"""What is to be read, and how, before a model is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..media.reporting import report
from ..options import GenerationOptions, MediaOptions
from .export import ExportFormat
from .page_files import open_pages
from .page_ranges import PageRanges
from .tasks import PageTask


@dataclass(frozen=True)
class FoundDocument:
    """A document of the input that can be opened.

    Attributes:
        source: its path or address, as given.
        digest: of its content.
        num_pages: of all of it, at least 1.
        numbers: of the pages to read, in order, from 1.
        needed_password: whether it is encrypted.
    """

    source: str
    digest: str
    num_pages: int
    numbers: tuple[int, ...]
    needed_password: bool = False


@dataclass(frozen=True)
class DocumentSettings:
    """How documents are read and what is written.

    Attributes:
        task: what is asked about each page.
        scale: pixels per point of PDF pages.
        options, media_options: as in `read_document`.
        to: the format.
        shows: whether page images with boxes are written, too.
        pages: which ones are read; None for all.
        password: of encrypted PDFs. It is in no record.
    """

    task: PageTask
    scale: float
    options: GenerationOptions
    media_options: MediaOptions
    to: ExportFormat
    shows: bool = False
    pages: PageRanges | None = None
    password: str | None = field(default=None, repr=False)

    def limits(self) -> dict[str, Any]:
        """Arguments of `open_pages`."""
        media = self.media_options
        given = {"policy": media.fetch_policy, "max_pixels": media.max_pixels, "password": self.password}
        return {name: value for name, value in given.items() if value is not None}

    def of_pages(self) -> dict[str, Any]:
        """What a page's answer depends on, of plain types."""
        media = self.media_options
        return {
            "task": self.task.name,
            "region": self.task.region,
            "prompt": self.task.own_prompt,
            "scale": self.scale,
            "max_tokens": self.options.max_tokens,
            "temperature": self.options.temperature,
            "seed": self.options.seed,
            "do_image_splitting": media.do_image_splitting,
            "longest_edge": media.longest_edge,
        }


def survey(sources: Sequence[str], settings: DocumentSettings) -> tuple[list[FoundDocument], list[Exception]]:
    """Open every document once, to know its content and its pages; no page is rendered.

    Returns:
        The documents, and why others cannot be opened or lack pages that are wanted: errors that name them.

    Raises:
        ImportError: a PDF, and what reads PDFs is not installed.
    """
    found: list[FoundDocument] = []
    errors: list[Exception] = []
    for number, source in enumerate(sources, 1):
        report("looking through the documents", number, len(sources))
        try:
            with open_pages(source, **settings.limits()) as pages:
                count = pages.num_pages
                numbers = settings.pages.numbers(pages.name, count) if settings.pages else tuple(range(1, count + 1))
                found.append(FoundDocument(source, pages.digest, count, numbers, pages.needed_password))
        except (ValueError, OSError, MemoryError) as error:
            errors.append(error)
    return found, errors
