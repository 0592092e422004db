"""Documents -> an index: what is new or has changed is read, the rest is left as it is."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

import mlx.core as mx
import numpy as np
from PIL import Image

from ..documents.page_files import open_pages
from ..documents.page_images import document_key
from ..media.prefetch import Prefetched
from ..media.reporting import report
from .index_writer import IndexWriter
from .manifest import IndexedDocument, IndexSettings
from .pooling import pool
from .retriever import Retriever

_PAGES_AHEAD = 4  # that are rendered while the model works
_PAGES_PER_CLEANING = 64
OnError = Callable[[str, int | None, Exception], None]
"""Called with a document as it was given, a page (None for all of it) and the reason why that cannot be read."""


def settings_of(
    retriever: Retriever, model: str, adapters: Sequence[tuple[str, float]], dtype: str, pool_factor: int
) -> IndexSettings:
    """The settings of an index that is made with a retriever, which came from `model` and `adapters`."""

    def place(name: str) -> str:
        return os.path.abspath(os.path.expanduser(name)) if Path(name).expanduser().exists() else name

    return IndexSettings(
        model=place(model),
        adapters=tuple((place(path), weight) for path, weight in adapters),
        dtype=dtype,
        fingerprint=retriever.fingerprint,
        prompt_format=retriever.prompt_format,
        vector_size=retriever.vector_size,
        pool_factor=pool_factor,
    )


def check_settings(folder: Path, index: IndexSettings, own: IndexSettings) -> None:
    """Refuse an index whose vectors cannot be compared with one's own, or joined with them.

    Raises:
        ValueError: it says what differs, and what to do.
    """
    for name, option in (("prompt_format", "--prompt-format"), ("pool_factor", "--pool-factor")):
        was, wanted = getattr(index, name), getattr(own, name)
        if was != wanted:
            raise ValueError(
                f"{folder} was made with {option} {was}, not {wanted}; write {option} {was}, or make another index"
            )
    if index.vector_size != own.vector_size:
        raise ValueError(
            f"{folder} holds vectors of {index.vector_size} numbers, and the model makes {own.vector_size}; "
            f"use the model that it was made with, {index.model}"
        )
    if index.fingerprint != own.fingerprint:
        with_adapters = "".join(f" --adapter-path {path}={weight:g}" for path, weight in index.adapters)
        raise ValueError(
            f"{folder} was made with another model (--model {index.model}{with_adapters} --dtype {index.dtype}); "
            "use that one, or make another index"
        )


@dataclass
class UpdatePlan:
    """What is to do.

    Attributes:
        todo: documents that are new or have changed, as they were given.
        num_pages: of these.
        num_new, num_changed, num_unchanged: documents.
        num_again: documents that have not changed, and of which pages are not in the index: they could not be read, or
            their vectors are gone or damaged.
        needed_password: whether any document did.
    """

    todo: list[str] = field(default_factory=list)
    num_pages: int = 0
    num_new: int = 0
    num_changed: int = 0
    num_unchanged: int = 0
    num_again: int = 0
    needed_password: bool = False


def plan_update(
    writer: IndexWriter,
    sources: Sequence[str],
    on_error: OnError,
    is_cancelled: Callable[[], bool] = lambda: False,
    password: str | None = None,
) -> UpdatePlan:
    """Which documents are not in the index as they are now. Files are read for their digests; nothing is rendered.

    Raises:
        ImportError: a PDF, and what reads PDFs is not installed.
    """
    plan = UpdatePlan()
    sources = list({document_key(source): source for source in sources}.values())  # which may be named twice
    for number, source in enumerate(sources, 1):
        if is_cancelled():
            break
        report("looking for what is new", number, len(sources))
        key = document_key(source)
        try:
            with open_pages(source, password=password) as pages:
                plan.needed_password |= pages.needed_password
                is_known = writer.is_complete(key, pages.digest)
                has_content = writer.has_content(key, pages.digest)
                num_pages = pages.num_pages
        except (ValueError, OSError, MemoryError) as error:
            on_error(source, None, error)
            continue
        if is_known:
            plan.num_unchanged += 1
            continue
        plan.todo.append(source)
        plan.num_pages += num_pages
        if has_content:
            plan.num_again += 1
        elif key in writer.manifest.documents:
            plan.num_changed += 1
        else:
            plan.num_new += 1
    return plan


@dataclass(frozen=True)
class _Read:
    """A page that was rendered, or could not be; `is_last` of its document."""

    source: str
    document_digest: str
    number: int
    image: Image.Image | None
    error: Exception | None
    is_last: bool


def update(
    writer: IndexWriter,
    retriever: Retriever,
    todo: Sequence[str],
    *,
    on_error: OnError,
    on_page: Callable[[], None] = lambda: None,
    is_cancelled: Callable[[], bool] = lambda: False,
    password: str | None = None,
) -> None:
    """Read documents into an index. The next pages are rendered, by a thread, while the model works.

    Args:
        writer: of the index; `finish` it afterwards.
        retriever: with the settings of the index.
        todo: of `plan_update`.
        on_error: gets what cannot be read; all else goes on.
        on_page: called after each page.
        is_cancelled: asked between steps; what was done until then is kept.
        password: of encrypted PDFs.
    """
    job = _Job(writer, on_error, on_page)
    with (
        closing(Prefetched(_read_pages(todo, on_error, password), _PAGES_AHEAD)) as read,
        closing(retriever.stream_pages(job.new_images(read, is_cancelled))) as embedded,
    ):
        for number, vectors in enumerate(embedded, 1):
            job.add(vectors)
            if number % _PAGES_PER_CLEANING == 0:
                mx.clear_cache()  # buffers of lengths that may not come again
    writer.commit()


def _read_pages(todo: Sequence[str], on_error: OnError, password: str | None) -> Iterator[_Read]:
    """The pages of documents, one after the other."""
    for source in todo:
        try:
            pages = open_pages(source, password=password)
        except (ValueError, OSError, MemoryError) as error:  # it could be opened a moment ago
            on_error(source, None, error)
            continue
        with pages:
            for number in range(1, pages.num_pages + 1):
                image = reason = None
                try:
                    image = pages.image(number)
                except (ValueError, OSError, MemoryError) as error:
                    reason = error
                yield _Read(source, pages.digest, number, image, reason, number == pages.num_pages)


class _Job:
    """The pages that are with the model, and the documents that wait for their pages."""

    def __init__(self, writer: IndexWriter, on_error: OnError, on_page: Callable[[], None]):
        self._writer, self._on_error, self._on_page = writer, on_error, on_page
        self._embedding: deque[tuple[str, _Read]] = deque()  # with their digests, in order
        self._refused: set[str] = set()
        self._digests: list[str | None] = []  # of the document that is being read
        self._ended: deque[tuple[_Read, list[str | None]]] = deque()  # documents, by their last pages

    def new_images(self, read: Iterator[_Read], is_cancelled: Callable[[], bool]) -> Iterator[Image.Image]:
        """Of the pages that are read, those that are not known yet."""
        for page in read:
            if is_cancelled():
                return
            digest = None
            if page.image is None:
                assert page.error is not None
                self._on_error(page.source, page.number, page.error)
            else:
                digest = page_digest(page.image)
            is_new = digest is not None and not self._is_settled(digest) and not self._is_with_model(digest)
            self._digests.append(digest)
            if page.is_last:
                self._ended.append((page, self._digests))
                self._digests = []
            if is_new and digest is not None and page.image is not None:
                self._embedding.append((digest, replace(page, image=None)))
                yield page.image
            else:
                self._settle()
                self._on_page()

    def add(self, vectors: np.ndarray | Exception) -> None:
        """Take what the model made of the next image, which may be an error."""
        digest, page = self._embedding.popleft()
        if isinstance(vectors, Exception):
            self._refused.add(digest)
            self._on_error(page.source, page.number, vectors)
        else:
            self._writer.add(digest, pool(vectors, self._writer.manifest.settings.pool_factor))
        self._settle()
        self._on_page()

    def _is_settled(self, digest: str | None) -> bool:
        return digest is None or digest in self._refused or self._writer.has(digest)

    def _is_with_model(self, digest: str) -> bool:
        return any(digest == other for other, _ in self._embedding)

    def _settle(self) -> None:
        """Hand over the documents whose pages are all known."""
        while self._ended and all(map(self._is_settled, self._ended[0][1])):
            page, digests = self._ended.popleft()
            pages = tuple(None if digest in self._refused else digest for digest in digests)
            self._writer.set_document(IndexedDocument(document_key(page.source), page.document_digest, pages))


def page_digest(image: Image.Image) -> str:
    """Hexadecimal, equal for equal pixels."""
    return blake2b(repr(image.size).encode() + image.tobytes(), digest_size=16).hexdigest()
