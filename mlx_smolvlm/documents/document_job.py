"""Documents -> files in an output folder: what is left to read, in which order, and what is written when.

Nothing is printed here. Each page is kept as soon as it is read; a document is written when its last page is.
"""

import os
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path, PurePath
from threading import Event
from typing import cast
from urllib.parse import urlsplit

from ..media.urls import is_url
from ..model.smolvlm import SmolVLM
from ..processor.processor import Processor
from .document_pages import PageImages, exported, tree_of
from .page_files import open_pages
from .page_images import document_key
from .page_reading import PageReading, PageToRead
from .page_records import PageRecords
from .reading import read_pages
from .shown_pages import SUFFIX, check_shown_pages, write_shown_pages
from .survey import DocumentSettings, FoundDocument

_MAX_NAME_BYTES = 230  # most systems have 255 for a name; endings such as .doctags are added
_MAX_SUFFIX = 20


class DocumentJob:
    """The documents of one run.

    Attributes:
        todo: (document, page) of what is left to read, in order. A content that several files have is read once.
        num_pages: of all documents, each content counted once.
        partial: (content, page) of pages that were cut, those of earlier runs included.
        changed: sources whose content is another one than in an earlier run; they are read again.
        damaged: (source, page) of records that are no longer whole; these pages are read again.
        written: files, in order.
    """

    def __init__(self, documents: Sequence[FoundDocument], roots: Sequence[str], records: PageRecords, out: Path):
        """
        Args:
            documents: from `survey`.
            roots: the inputs as given; documents in folders keep their places below them.
            records: of the output folder.
            out: that folder.
        """
        self._documents, self._records, self._out = documents, records, out
        self._stems = output_stems([document.source for document in documents], roots)
        self._left: dict[str, int] = {}  # pages to read, by content
        self.todo: list[tuple[FoundDocument, int]] = []
        self.num_pages = 0
        self.partial: set[tuple[str, int]] = set()
        self.changed: list[str] = []
        self.damaged: list[tuple[str, int]] = []
        self.written: list[Path] = []

    def begin(self, settings: DocumentSettings, model_name: str, fingerprint: str) -> None:
        """Look what is left. Raises ValueError, FileExistsError where the output folder is of something else."""
        self._settings = settings
        self._records.begin(model_name, {"fingerprint": fingerprint, **settings.of_pages()})
        in_use = {document.digest for document in self._documents}
        for document in self._documents:
            self._records.check_output(self._target(document), document_key(document.source), document.digest)
            if settings.shows:
                check_shown_pages(self._out / f"{self._stems[document.source]}{SUFFIX}")
            if document.digest in self._left:
                continue
            key = document_key(document.source)
            if self._records.note_document(document.digest, key, document.num_pages, in_use):
                self.changed.append(document.source)
            missing = [number for number in document.numbers if not self._is_read(document, number)]
            self.todo += [(document, number) for number in missing]
            self._left[document.digest] = len(missing)
            self.num_pages += len(document.numbers)

    def _is_read(self, document: FoundDocument, number: int) -> bool:
        if not self._records.has(document.digest, number):
            return False
        try:
            self._records.get(document.digest, number, document.source)
        except ValueError:
            self.damaged.append((document.source, number))
            return False
        return True

    def readings(
        self, model: SmolVLM, processor: Processor, batch_size: int, cancel: Event | None = None
    ) -> Iterator[PageReading]:
        """Read what is left, and write every document whose pages are all done.

        Yields:
            Each page as it is done, in any order.
        """
        settings = self._settings
        errors: dict[tuple[str, int], PageReading] = {}
        with_content: dict[str, list[FoundDocument]] = {}
        for document in self._documents:
            with_content.setdefault(document.digest, []).append(document)
            if not self._left[document.digest]:
                self._write(document, errors)
        pages = read_pages(
            model,
            processor,
            self._pages(),
            settings.task,
            options=settings.options,
            media_options=settings.media_options,
            batch_size=batch_size,
            cancel=cancel,
        )
        with closing(cast(Generator[tuple[int, PageReading], None, None], pages)):
            for index, reading in pages:
                digest = self.todo[index][0].digest
                if reading.error is None:
                    self._records.put(digest, reading)
                else:
                    errors[digest, reading.number] = reading
                self._left[digest] -= 1
                if not self._left[digest]:
                    for document in with_content[digest]:
                        self._write(document, errors)
                yield reading

    def _pages(self) -> Generator[PageToRead, None, None]:
        """The pages to read: one for each entry of `todo`."""
        place = 0
        while place < len(self.todo):
            document = self.todo[place][0]
            numbers = []
            while place < len(self.todo) and self.todo[place][0] is document:
                numbers.append(self.todo[place][1])
                place += 1
            yield from self._pages_of(document, numbers)

    def _pages_of(self, document: FoundDocument, numbers: Sequence[int]) -> Generator[PageToRead, None, None]:
        try:
            pages = open_pages(document.source, **self._settings.limits())
            if pages.digest != document.digest:
                pages.close()
                raise ValueError(f"{pages.name} was changed while it was being read; run the same command again")
        except (ValueError, OSError, MemoryError) as error:
            yield from (PageToRead(document.source, number, error=error) for number in numbers)
            return
        with pages:
            for number in numbers:
                try:
                    yield PageToRead(document.source, number, pages.image(number, self._settings.scale))
                except (ValueError, OSError, MemoryError) as error:
                    yield PageToRead(document.source, number, error=error)

    def _target(self, document: FoundDocument) -> Path:
        return self._out / f"{self._stems[document.source]}.{self._settings.to}"

    def _write(self, document: FoundDocument, errors: dict[tuple[str, int], PageReading]) -> None:
        settings, target = self._settings, self._target(document)
        readings = [
            errors.get((document.digest, number)) or self._records.get(document.digest, number, document.source)
            for number in document.numbers
        ]
        self.partial |= {(document.digest, reading.number) for reading in readings if reading.is_partial}
        with PageImages(document.source, document.numbers, settings.scale, settings.task, settings.limits()) as images:
            content = exported(readings, settings.to, images).encode("utf-8")
            self._records.write_output(target, content, document_key(document.source), document.digest)
            self.written.append(target)
            if settings.shows:
                images.wanted = set(range(len(document.numbers)))
                folder = self._out / f"{self._stems[document.source]}{SUFFIX}"
                write_shown_pages(folder, PurePath(document.source).name, tree_of(readings), images)
                self.written.append(folder / "index.html")


def output_stems(sources: Sequence[str], roots: Sequence[str]) -> dict[str, str]:
    """Names of the files to write, relative to the output folder and without their ending, each another one.

    A document in a folder that was given keeps its place below it. Where two would have one name, they keep their
    endings; where they still do, a number tells them apart. Names that leave no room for that are cut.
    """
    plain = {source: _place(source, roots) for source in sources}
    shared = Counter(
        path.with_suffix("").as_posix().casefold() for path in plain.values()
    )  # as some systems name files
    stems: dict[str, str] = {}
    taken: set[str] = set()
    for source, path in plain.items():
        stem = path.with_suffix("").as_posix()
        name = unique = path.as_posix() if shared[stem.casefold()] > 1 else stem
        number = 2
        while unique.casefold() in taken:
            unique, number = f"{name}-{number}", number + 1
        taken.add(unique.casefold())
        stems[source] = unique
    return stems


def _place(source: str, roots: Sequence[str]) -> PurePath:
    """A document's name below the output folder, with its ending."""
    if is_url(source):
        return PurePath(_cut(PurePath(urlsplit(source).path).name or "document"))
    path = Path(source).expanduser()
    for root in roots:
        folder = Path(root).expanduser()
        if not is_url(root) and folder in path.parents:
            below = path.relative_to(folder)
            return below.with_name(_cut(below.name))
    return PurePath(_cut(path.name))


def _cut(name: str) -> str:
    """A file's name that is short enough for another ending and a number."""
    stem, suffix = os.path.splitext(name)
    if len(suffix) > _MAX_SUFFIX:  # which is none
        stem, suffix = name, ""
    room = _MAX_NAME_BYTES - len(os.fsencode(suffix))
    return name if len(os.fsencode(stem)) <= room else os.fsencode(stem)[:room].decode("utf-8", "ignore") + suffix
