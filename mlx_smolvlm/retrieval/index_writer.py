"""Writes an index, so that a process that is killed at any moment leaves one that is whole.

Vectors are written first, into a new file, and `index.json` after them. One process at a time writes an index; those
that search it meanwhile see it as it was or as it is.
"""

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..files import refuse_unwritable
from ..media.urls import is_url
from .cpu_scores import are_finite
from .manifest import (
    CHUNK_NAME,
    MANIFEST,
    IndexedDocument,
    IndexSettings,
    Manifest,
    VectorChunk,
    is_index,
    read_manifest,
)

CHUNK_BYTES = 128 * 1024**2  # of a file of vectors; small ones are joined up to this
COMMIT_PAGES = 32  # a kill costs at most so many pages
COMMIT_S = 20.0  # or those of so long a time
_REWRITTEN_AT_ONCE = 8  # files, that are on the disk twice meanwhile
_HEADER_BYTES = 128  # of a .npy file, as numpy pads it


def check_target(folder: Path) -> None:
    """Refuse a folder that an index cannot be made in, before any work.

    Raises:
        FileExistsError: it is there, and no index; or a file.
        PermissionError: it may not be written.
        ValueError, FileNotFoundError: as `read_manifest`.
    """
    if is_index(folder):
        read_manifest(folder)
    elif folder.is_dir():
        if any(not name.startswith(".") for name in os.listdir(folder)):
            raise FileExistsError(f"{folder} exists already and is no index of pages; choose another --out")
    elif os.path.lexists(folder):
        raise FileExistsError(f"{folder} exists already and is no folder; choose another --out")
    refuse_unwritable(folder)


class IndexWriter:
    """An index that is being written; use it in a `with` statement, which keeps other writers out.

    Attributes:
        folder: of the index.
        manifest: what it holds; what is `add`ed comes in with `commit`.
        notes: what was found broken and will be made again.
    """

    def __init__(self, folder: Path, settings: IndexSettings):
        """
        Args:
            folder: of an index, or where to make one.
            settings: of the new one; those of one that is there must be the same (see `check_settings`).

        Raises:
            What `check_target` raises; OSError: the folder cannot be written, or another process is writing it.
        """
        check_target(folder)
        self.folder = folder
        self.notes: list[str] = []
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(folder)
        try:
            if is_index(folder):
                self.manifest = read_manifest(folder)
            else:
                self.manifest = Manifest(settings)
                self.manifest.write(folder)
            self._drop_broken()
            self._remove_strays()
        except BaseException:
            os.close(self._lock)
            raise
        self._pending: dict[str, np.ndarray] = {}
        self._waiting: list[IndexedDocument] = []
        self._stored = set(self.manifest.stored)
        self._committed_at = time.monotonic()

    def __enter__(self) -> "IndexWriter":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def has(self, digest: str) -> bool:
        """Whether a page's vectors are stored or about to be."""
        return digest in self._stored or digest in self._pending

    def is_complete(self, path: str, digest: str) -> bool:
        """Whether a document is in the index with this content, all pages of it."""
        known = self.manifest.documents.get(path)
        return (
            known is not None and known.digest == digest and all(page and page in self._stored for page in known.pages)
        )

    def has_content(self, path: str, digest: str) -> bool:
        """Whether a document was read with this content, even if some of its pages are not in the index."""
        known = self.manifest.documents.get(path)
        return known is not None and known.digest == digest

    def add(self, digest: str, vectors: np.ndarray) -> None:
        """Take the vectors of a page, (num_vectors, vector_size); written with the next commit, now if it is due."""
        self._pending[digest] = vectors.astype(np.float16)
        if len(self._pending) >= COMMIT_PAGES or time.monotonic() - self._committed_at > COMMIT_S:
            self.commit()

    def set_document(self, document: IndexedDocument) -> None:
        """Let a document have these pages, which have all been added, in place of what it had."""
        self._waiting.append(document)

    def commit(self) -> None:
        """Have all that was taken on the disk."""
        if self._pending:
            self.manifest.chunks.append(self._write_chunk(list(self._pending.items())))
        self.manifest.documents |= {document.path: document for document in self._waiting}
        if self._pending or self._waiting:
            self.manifest.write(self.folder)
        self._stored |= self._pending.keys()
        self._pending, self._waiting = {}, []
        small = self._small_chunks()
        if sum(map(self._num_bytes, small)) >= CHUNK_BYTES:  # not at the end alone: that would take the disk twice
            self._rewrite(small, set(self._stored))
        self._committed_at = time.monotonic()

    def prune(self) -> list[str]:
        """Forget documents whose files are no longer there; returns their paths."""
        gone = [path for path in self.manifest.documents if not is_url(path) and not os.path.exists(path)]
        for path in gone:
            del self.manifest.documents[path]
        if gone:
            self.manifest.write(self.folder)
        return gone

    def finish(self) -> None:
        """Commit, release the vectors of pages that no document has any more, and join small files."""
        self.commit()
        needed = {page for document in self.manifest.documents.values() for page in document.pages}
        small = self._small_chunks()
        joined = {chunk.file for chunk in small} if len(small) > 1 else set()
        old = [
            chunk
            for chunk in self.manifest.chunks
            if chunk.file in joined or any(digest not in needed for digest, _ in chunk.pages)
        ]
        for start in range(0, len(old), _REWRITTEN_AT_ONCE):
            self._rewrite(old[start : start + _REWRITTEN_AT_ONCE], needed)

    def _small_chunks(self) -> list[VectorChunk]:
        return [chunk for chunk in self.manifest.chunks if 2 * self._num_bytes(chunk) < CHUNK_BYTES]

    def _num_bytes(self, chunk: VectorChunk) -> int:
        return 2 * self.manifest.settings.vector_size * chunk.num_vectors

    def _rewrite(self, old: Sequence[VectorChunk], needed: set[str | None]) -> None:
        """Put the needed pages of some chunks into new ones."""
        files = {chunk.file for chunk in old}
        kept = [chunk for chunk in self.manifest.chunks if chunk.file not in files]
        for pages in self._full_groups(old, needed):
            kept.append(self._write_chunk(pages))
        self.manifest.chunks = kept
        self.manifest.write(self.folder)
        self._stored = set(self.manifest.stored)
        for file in files:
            (self.folder / file).unlink(missing_ok=True)

    def _full_groups(
        self, chunks: Sequence[VectorChunk], needed: set[str | None]
    ) -> Iterator[list[tuple[str, np.ndarray]]]:
        """The needed pages of some chunks, each once, as many together as make a full file."""
        group: list[tuple[str, np.ndarray]] = []
        seen: set[str] = set()
        size = 0
        for chunk in chunks:
            vectors = read_chunk(self.folder, chunk, self.manifest.settings.vector_size)
            start = 0
            for digest, count in chunk.pages:
                own = vectors[start : start + count]
                start += count
                if digest not in needed or digest in seen:
                    continue
                seen.add(digest)
                if group and size + own.nbytes > CHUNK_BYTES:
                    yield group
                    group, size = [], 0
                group.append((digest, own))
                size += own.nbytes
        if group:
            yield group

    def _write_chunk(self, pages: Sequence[tuple[str, np.ndarray]]) -> VectorChunk:
        chunk = VectorChunk(
            f"vectors-{self.manifest.next_chunk:06d}.npy", tuple((digest, len(vectors)) for digest, vectors in pages)
        )
        self.manifest.next_chunk += 1
        path = self.folder / chunk.file
        try:
            with path.open("xb") as file:
                np.save(file, np.concatenate([vectors for _, vectors in pages]), allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:  # of a write, it does not name the file
            with suppress(OSError):
                path.unlink(missing_ok=True)
            if error.errno is None:  # numpy's own
                raise OSError(f"{path} could not be written ({error}); the disk may be full") from None
            raise OSError(error.errno, error.strerror, str(path)) from None
        return chunk

    def _drop_broken(self) -> None:
        """Forget files of vectors that are gone, cut off or not finite; the pages in them will be made again."""
        size = self.manifest.settings.vector_size
        whole = []
        for chunk in self.manifest.chunks:
            path = self.folder / chunk.file
            expected = _HEADER_BYTES + 2 * size * chunk.num_vectors
            if path.is_file() and path.stat().st_size == expected and self._is_readable(chunk):
                whole.append(chunk)
            else:
                self.notes.append(f"{path} is gone or damaged: its {len(chunk.pages)} pages are read again")
        self.manifest.chunks = whole

    def _is_readable(self, chunk: VectorChunk) -> bool:
        try:
            return are_finite(read_chunk(self.folder, chunk, self.manifest.settings.vector_size))
        except (ValueError, OSError):
            return False

    def _remove_strays(self) -> None:
        """Remove files of vectors that a killed process left before `index.json` named them."""
        named = {chunk.file for chunk in self.manifest.chunks}
        for entry in os.scandir(self.folder):
            if CHUNK_NAME.fullmatch(entry.name) and entry.name not in named and entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)


def read_chunk(folder: Path, chunk: VectorChunk, vector_size: int) -> np.ndarray:
    """The vectors of a chunk, (num_vectors, vector_size) float16, mapped and not read.

    Raises:
        FileNotFoundError: it is gone, as when the index has been written meanwhile.
        ValueError: it is damaged.
    """
    path = folder / chunk.file
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{path} is not a regular file; run python -m mlx_smolvlm.index again")
    try:
        vectors: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}); run python -m mlx_smolvlm.index again") from None
    if vectors.dtype != np.float16 or vectors.shape != (chunk.num_vectors, vector_size):
        raise ValueError(
            f"{path} holds {vectors.shape} {vectors.dtype}, {MANIFEST} says {(chunk.num_vectors, vector_size)} "
            "float16; run python -m mlx_smolvlm.index again"
        )
    return vectors


def _locked(folder: Path) -> int:
    """A descriptor that keeps other writers out until it is closed."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise BlockingIOError(f"{folder} is being written by another process; wait until it has ended") from None
    except OSError:  # a file system without locks
        pass
    return descriptor
