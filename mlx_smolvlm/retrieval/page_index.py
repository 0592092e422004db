"""An index that is searched: every page is scored, with memory for a few pages at a time."""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from .index_writer import read_chunk
from .manifest import IndexSettings, Manifest, VectorChunk, read_manifest
from .maxsim import best_products

_CPU_BLOCK_BYTES = 2**20  # of vectors that are taken at a time: what a core's cache holds
_GPU_BLOCK_BYTES = 32 * 2**20
_ATTEMPTS = 5  # to read an index that is being written


@dataclass(frozen=True)
class SearchResult:
    """A page that was found.

    Attributes:
        path: of its document, absolute; or an address.
        page: number of the page, counted from 1.
        score: MaxSim; comparable between pages, for one query.
        digest: of the page's pixels, as they were indexed.
    """

    path: str
    page: int
    score: float
    digest: str


class PageIndex:
    """An index made by `python -m mlx_smolvlm.index`, which may be written meanwhile.

    Attributes:
        folder: where it is.
        manifest: what it holds.
    """

    def __init__(self, folder: Path):
        """Raises what `read_manifest` raises."""
        self.folder = folder
        self.manifest: Manifest = read_manifest(folder)

    @property
    def settings(self) -> IndexSettings:
        """What it was made with."""
        return self.manifest.settings

    @property
    def num_pages(self) -> int:
        """Pages that can be found."""
        return self.manifest.num_pages

    def search(self, query: np.ndarray, top_k: int) -> list[SearchResult]:
        """The pages with the best scores.

        Args:
            query: (num_vectors, vector_size) float32, of `Retriever.embed_queries`.
            top_k: most results.

        Returns:
            Best first; of equal scores, by path and page. A page that several documents have counts for each.

        Raises:
            ValueError: files of the index are damaged.
        """
        for attempt in range(_ATTEMPTS):
            try:
                scores = self._scores(query)
                break
            except FileNotFoundError:  # joined to another file meanwhile
                if attempt == _ATTEMPTS - 1:
                    raise
                self.manifest = read_manifest(self.folder)
        return best_results(self.manifest, scores, top_k)

    def _scores(self, query: np.ndarray) -> dict[str, float]:
        """The score of each page by its digest."""
        rows, scores = mx.array(query), dict[str, float]()
        for chunk in self.manifest.chunks:
            vectors = read_chunk(self.folder, chunk, self.manifest.settings.vector_size)
            for start, pages in _blocks(chunk, vectors.itemsize * vectors.shape[1]):
                lengths = [count for _, count in pages]
                block = mx.array(vectors[start : start + sum(lengths)]).astype(mx.float32)
                totals = best_products(rows, block, lengths).sum(axis=0)
                scores |= zip((digest for digest, _ in pages), totals.tolist(), strict=True)
        return scores


def best_results(manifest: Manifest, scores: dict[str, float], top_k: int) -> list[SearchResult]:
    """The pages of the documents with the best scores, given by the pages' digests; in the order of `search`."""
    found = (
        SearchResult(document.path, number, scores[digest], digest)
        for document in manifest.documents.values()
        for number, digest in enumerate(document.pages, 1)
        if digest in scores
    )
    return best_of(found, top_k)


def best_of(results: Iterable[SearchResult], top_k: int) -> list[SearchResult]:
    """The results with the best scores; of equal ones, by path and page."""
    return heapq.nsmallest(top_k, results, key=lambda result: (-result.score, result.path, result.page))


def _blocks(chunk: VectorChunk, row_bytes: int) -> Iterator[tuple[int, list[tuple[str, int]]]]:
    """Pages to take at a time, with the row at which they begin."""
    most_bytes = _GPU_BLOCK_BYTES if mx.default_device() == mx.gpu else _CPU_BLOCK_BYTES
    start, pages, rows = 0, list[tuple[str, int]](), 0
    for digest, count in chunk.pages:
        if pages and (rows + count) * row_bytes > most_bytes:
            yield start, pages
            start, pages, rows = start + rows, [], 0
        pages.append((digest, count))
        rows += count
    if pages:
        yield start, pages
