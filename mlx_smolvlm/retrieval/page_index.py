"""An index that is searched: every page is scored, with memory for a few pages at a time."""

import heapq
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import mlx.core as mx
import numpy as np

from .cpu_scores import NOT_FINITE, cpu_scores
from .index_writer import read_chunk
from .manifest import IndexSettings, Manifest, read_manifest
from .maxsim import best_products

_READ_BYTES = 16 * 2**20  # of vectors that are read at a time
_ATTEMPTS = 5  # to read an index that is being written
_Pages: TypeAlias = list[tuple[str, int]]  # digest and number of vectors of each
_Part: TypeAlias = tuple[_Pages, np.ndarray]  # with their vectors
_Scored: TypeAlias = tuple[_Pages, np.ndarray]  # with their scores


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
        scored = _on_cpu if mx.default_device() == mx.cpu else _on_gpu
        scores = dict[str, float]()
        for pages, totals in scored(query, self._parts()):
            scores.update(zip((digest for digest, _ in pages), totals.tolist(), strict=True))
        return scores

    def _parts(self) -> Iterator[_Part]:
        """All pages with their vectors, mapped and not read, some at a time."""
        size = self.manifest.settings.vector_size
        for chunk in self.manifest.chunks:
            vectors = read_chunk(self.folder, chunk, size)
            for start, pages in _groups(chunk.pages, _READ_BYTES // (2 * size)):
                yield pages, vectors[start : start + sum(count for _, count in pages)]


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


def _on_gpu(query: np.ndarray, parts: Iterator[_Part]) -> Iterator[_Scored]:
    """The scores of pages, with the next part being read while one is computed."""
    rows = mx.array(query)
    earlier: tuple[_Pages, mx.array] | None = None
    for pages, vectors in parts:
        part = mx.array(vectors).astype(mx.float32)  # read here
        totals = best_products(rows, part, [count for _, count in pages]).sum(axis=0)
        mx.async_eval(totals)
        if earlier is not None:
            yield earlier[0], _finite(earlier[1])
        earlier = pages, totals
    if earlier is not None:
        yield earlier[0], _finite(earlier[1])


def _finite(totals: mx.array) -> np.ndarray:
    values = np.array(totals)
    if not np.isfinite(values).all():
        raise ValueError(NOT_FINITE)
    return values


def _on_cpu(query: np.ndarray, parts: Iterator[_Part]) -> Iterator[_Scored]:
    """The scores of pages, a part for each core at a time."""
    num_threads = os.cpu_count() or 1
    running: deque[tuple[_Pages, Future[np.ndarray]]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        for pages, vectors in parts:
            running.append((pages, pool.submit(cpu_scores, query, vectors, [count for _, count in pages])))
            if len(running) > num_threads:
                earlier, scores = running.popleft()
                yield earlier, scores.result()
        for pages, scores in running:
            yield pages, scores.result()


def _groups(pages: Sequence[tuple[str, int]], most_rows: int) -> Iterator[tuple[int, _Pages]]:
    """Pages with so many vectors together, or one with more; and the row at which they begin."""
    start, group, rows = 0, list[tuple[str, int]](), 0
    for digest, count in pages:
        if group and rows + count > most_rows:
            yield start, group
            start, group, rows = start + rows, [], 0
        group.append((digest, count))
        rows += count
    if group:
        yield start, group
