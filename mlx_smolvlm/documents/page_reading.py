"""A page before and after a model reads it."""

import os
import warnings
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ..media.images import describe_source
from ..options import MediaOptions
from .page_file import DEFAULT_SCALE
from .page_files import PageSource, open_pages
from .page_images import LeftOutFiles, find_documents
from .page_ranges import PageRanges
from .shown_pages import is_shown_page


@dataclass(frozen=True)
class PageReading:
    """What a model has read on a page, or the reason why there is nothing.

    Attributes:
        source: the document's name.
        number: of the page, counted from 1; 0 stands for a document that cannot be opened.
        doctags: the model's answer with all its special tokens, up to `</doctag>`; empty if there is an error.
        finish_reason: "stop"; "length", where the page was cut by `max_tokens` or the end of the context; "loop", where
            the model repeated itself and was stopped; None if there is an error.
        error: why the page was not read; None if it was.
        size: (width, height) in pixels of the image that the model was shown, to which locations refer.
        prompt_tokens, completion_tokens: the end token included.
        seconds: since the model began with the page. Pages that are read together share them.
    """

    source: str
    number: int
    doctags: str = ""
    finish_reason: str | None = None
    error: Exception | None = None
    size: tuple[int, int] = (0, 0)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    @property
    def is_partial(self) -> bool:
        """Whether the page was cut: its text is kept, and more of it may be missing."""
        return self.finish_reason in ("length", "loop")


@dataclass(frozen=True)
class PageToRead:
    """A page in the order of reading.

    Attributes:
        source, number: as in `PageReading`.
        image: the page, RGB; None with an error.
        error: why there is no image.
    """

    source: str
    number: int
    image: Image.Image | None = None
    error: Exception | None = None


def pages_of(
    sources: Iterable[PageSource],
    scale: float = DEFAULT_SCALE,
    media_options: MediaOptions | None = None,
    ranges: PageRanges | None = None,
    password: str | None = None,
) -> Generator[PageToRead, None, None]:
    """The pages of documents, rendered one at a time, with the errors of those that cannot be."""
    limits: dict[str, Any] = {"password": password}
    if media_options is not None and media_options.fetch_policy is not None:
        limits["policy"] = media_options.fetch_policy
    if media_options is not None and media_options.max_pixels is not None:
        limits["max_pixels"] = media_options.max_pixels
    for source in sources:
        if isinstance(source, str | os.PathLike) and os.path.isdir(os.path.expanduser(source)):
            for found in _documents_of_folder(os.fsdecode(source)):
                if isinstance(found, PageToRead):
                    yield found
                else:
                    yield from pages_of([found], scale, media_options, ranges, password)
            continue
        try:
            pages = open_pages(source, **limits)
        except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
            yield PageToRead(describe_source(source), 0, error=error)
            continue
        with pages:
            try:
                numbers = ranges.numbers(pages.name, len(pages)) if ranges else range(1, len(pages) + 1)
            except ValueError as error:
                yield PageToRead(pages.name, 0, error=error)
                continue
            for number in numbers:
                try:
                    image = pages.image(number, scale)
                except (ValueError, OSError, MemoryError) as error:
                    yield PageToRead(pages.name, number, error=error)
                else:
                    yield PageToRead(pages.name, number, image)


def _documents_of_folder(folder: str) -> Iterator[str | PageToRead]:
    """The documents in a folder, or the reason why there are none."""
    left_out = LeftOutFiles()
    try:
        documents = find_documents([folder], left_out, skipped=is_shown_page)
    except (ValueError, OSError) as error:
        yield PageToRead(describe_source(folder), 0, error=error)
        return
    for note in left_out.notes():
        warnings.warn(f"{describe_source(folder)}: {note}", stacklevel=2)
    yield from documents
