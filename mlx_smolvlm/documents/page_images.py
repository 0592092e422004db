"""Documents as users name them -> the pages of all, one image at a time."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from ..media.folders import files_below
from ..media.images import describe_source
from ..media.signatures import IMAGE_SUFFIXES, is_image, is_pdf, skipped_note
from ..media.urls import is_url
from ..options import quoted
from .page_file import DEFAULT_SCALE
from .page_files import PageSource, open_pages

_HEAD_BYTES = 1024
OnError = Callable[[str, int | None, Exception], None]


@dataclass(frozen=True)
class PageImage:
    """A page.

    Attributes:
        source: the document's name.
        number: of the page, counted from 1.
        image: the page upright, RGB.
    """

    source: str
    number: int
    image: Image.Image


@dataclass
class LeftOutFiles:
    """What was found in folders and is no document.

    Attributes:
        files: how many of each kind, by suffix.
        unread: folders that could not be looked into, with the reason.
    """

    files: Counter[str] = field(default_factory=Counter)
    unread: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """A line for each of both, for people."""
        lines = [skipped_note(self.files)] if self.files else []
        if self.unread:
            more = f" and {len(self.unread) - 1} more" if len(self.unread) > 1 else ""
            lines.append(f"could not look into {self.unread[0]}{more}")
        return lines


def find_documents(
    inputs: Sequence[str], left_out: LeftOutFiles | None = None, *, skipped: Callable[[Path], bool] = lambda path: False
) -> list[str]:
    """The PDFs and images that `inputs` name, in a fixed order, each once.

    Folders are searched with their subfolders, but nothing hidden; content tells documents from other files. Files and
    addresses are taken as they are, and refused where they are opened.

    Args:
        inputs: folders, files or addresses.
        left_out: gets what was found in folders and is no document.
        skipped: says which files of folders are none of the input: those that the program has written itself.

    Raises:
        FileNotFoundError: an input is not there. ValueError: a folder has no document in it.
    """
    left_out = LeftOutFiles() if left_out is None else left_out
    found: dict[str, None] = {}
    for given in inputs:
        path = Path(given).expanduser()
        if is_url(given) or path.is_file():
            found[given] = None
        elif path.is_dir():
            names = [str(name) for name in files_below(path, left_out.unread) if not skipped(name)]
            documents = [name for name in names if _is_document(name, left_out.files)]
            if not documents:
                raise ValueError("; ".join([f"no PDFs and no images in {given}", *left_out.notes()]))
            found.update(dict.fromkeys(documents))
        elif os.path.lexists(path):
            raise ValueError(f"{quoted(given, 300)} is neither a folder nor a file that is there")
        else:
            raise FileNotFoundError(f"no folder or file {quoted(given, 300)}; name PDFs, images or folders")
    return list(found)


def find_each(
    inputs: Sequence[str], left_out: LeftOutFiles, *, skipped: Callable[[Path], bool]
) -> tuple[list[str], list[Exception]]:
    """As `find_documents`, and why there is nothing behind some of the inputs: one bad one loses none of the others."""
    sources: dict[str, None] = {}
    errors: list[Exception] = []
    for given in inputs:
        try:
            sources.update(dict.fromkeys(find_documents([given], left_out, skipped=skipped)))
        except (ValueError, OSError) as error:
            errors.append(error)
    return list(sources), errors


def document_key(source: str) -> str:
    """What a document is called in records that outlast a run: its absolute path, or its address."""
    return source if is_url(source) else os.path.abspath(os.path.expanduser(source))


def page_images(
    sources: Sequence[PageSource], *, scale: float = DEFAULT_SCALE, on_error: OnError | None = None
) -> Iterator[PageImage]:
    """The pages of documents, rendered when they are asked for: one is in memory at a time.

    Args:
        sources: each as `open_pages` takes it.
        scale: pixels per point of PDF pages; 2 are 144 dpi.
        on_error: called with the document's name, the page (None for the document as a whole) and the reason where one
            cannot be read; the others follow. None raises.

    Yields:
        The pages of one document after the other, in order.

    Raises:
        What `open_pages` and `PageFile.image` raise, without `on_error`.
    """
    for source in sources:
        try:
            pages = open_pages(source)
        except (ValueError, OSError, ImportError) as error:
            _report(on_error, describe_source(source), None, error)
            continue
        with pages:
            for number in range(1, pages.num_pages + 1):
                try:
                    image = pages.image(number, scale)
                except (ValueError, OSError) as error:
                    _report(on_error, pages.name, number, error)
                    continue
                yield PageImage(pages.name, number, image)


def _report(on_error: OnError | None, name: str, number: int | None, error: Exception) -> None:
    if on_error is None:
        raise error
    on_error(name, number, error)


def _is_document(name: str, skipped: Counter[str]) -> bool:
    """Whether a file in a folder is a PDF or an image, by content; `skipped` counts the others by suffix.

    What is named as one and is none counts as one: the error that it leads to says what is wrong.
    """
    head = b""
    with suppress(OSError):
        if os.path.isfile(name):  # a pipe would be waited for
            with open(name, "rb", buffering=0) as file:
                head = file.read(_HEAD_BYTES)
    suffix = Path(name).suffix.lower()
    if is_pdf(head) or is_image(head) or suffix in IMAGE_SUFFIXES or suffix == ".pdf":
        return True
    skipped[suffix[1:].upper() if suffix[1:].isalnum() else "other"] += 1
    return False
