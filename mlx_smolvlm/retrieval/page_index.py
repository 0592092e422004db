"""An index that is searched: every page is scored, with memory for a few pages at a time."""

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..model.layers.streams import each_side_by_side
from .index_writer import read_chunk
from .manifest import IndexSettings, Manifest, read_manifest
from .maxsim import best_products

_READ_BYTES = 16 * 2**20  # of vectors that are read at a time
_CPU_BLOCK_BYTES = 2**20  # that a CPU works on at a time: what a core's cache holds
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
        row_bytes = 2 * self.manifest.settings.vector_size
        earlier: tuple[list[tuple[str, int]], mx.array] | None = None
        for chunk in self.manifest.chunks:
            vectors = read_chunk(self.folder, chunk, self.manifest.settings.vector_size)
            for start, pages in _groups(chunk.pages, _READ_BYTES // row_bytes):
                part = mx.array(vectors[start : start + sum(count for _, count in pages)])  # read here
                totals = _totals(rows, part, [count for _, count in pages])
                mx.async_eval(totals)  # while the next part is read
                _collect(scores, earlier)
                earlier = pages, totals
        _collect(scores, earlier)
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


def _totals(query_rows: mx.array, part: mx.array, lengths: Sequence[int]) -> mx.array:
    """The scores of the pages of a part, (num_vectors, vector_size) float16, lazily: (num_pages,) float32."""
    most_rows = _CPU_BLOCK_BYTES // (2 * part.shape[1]) if mx.default_device() == mx.cpu else part.shape[0]

    def block_totals(start: int, own: Sequence[int]) -> mx.array:
        block = part[start : start + sum(own)].astype(mx.float32)
        return best_products(query_rows, block, own).sum(axis=0)

    groups = _groups([("", length) for length in lengths], most_rows)
    blocks = [partial(block_totals, start, [count for _, count in pages]) for start, pages in groups]
    return mx.concatenate(each_side_by_side(blocks))


def _collect(scores: dict[str, float], found: tuple[list[tuple[str, int]], mx.array] | None) -> None:
    if found is not None:
        pages, totals = found
        values: Any = totals.tolist()
        if not all(map(math.isfinite, values)):
            raise ValueError("the index holds vectors that are not finite (NaN or infinity); make it again")
        scores.update(zip((digest for digest, _ in pages), values, strict=True))


def _groups(pages: Sequence[tuple[str, int]], most_rows: int) -> Iterator[tuple[int, list[tuple[str, int]]]]:
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
