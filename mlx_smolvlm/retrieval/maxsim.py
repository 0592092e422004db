"""MaxSim: each vector of a query takes the best product among a page's vectors, and these are added up."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import mlx.core as mx
import numpy as np

from ..options import quoted

MAX_PRODUCTS = 16 * 1024**2  # numbers that are held at a time


def check_vectors(name: str, vectors: Sequence[Any], size: int | None = None) -> list[np.ndarray]:
    """Multi-vectors as arrays.

    Args:
        name: what they are called in errors.
        vectors: arrays (num_vectors, vector_size), of any type of numbers.
        size: the expected vector_size; None for that of the first.

    Returns:
        Arrays of the same shapes, float32.

    Raises:
        ValueError: no list, an array of another shape, without vectors, or with values that are not finite.
    """
    if not isinstance(vectors, list | tuple):
        raise ValueError(f"{name} is {quoted(vectors)}, expected a list of arrays (num_vectors, vector_size)")
    checked = []
    for number, given in enumerate(vectors):
        array = np.array(given, np.float32)
        if array.ndim != 2 or 0 in array.shape:
            raise ValueError(f"{name}[{number}] has shape {array.shape}, expected (num_vectors, vector_size)")
        size = array.shape[1] if size is None else size
        if array.shape[1] != size:
            raise ValueError(f"{name}[{number}] has vectors of {array.shape[1]} numbers, expected {size}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name}[{number}] holds values that are not finite (NaN or infinity)")
        checked.append(array)
    return checked


def maxsim(queries: Sequence[np.ndarray], pages: Sequence[np.ndarray]) -> np.ndarray:
    """The scores of pages, of whatever numbers of vectors, float32 (num_queries, num_pages).

    Args:
        queries, pages: (num_vectors, vector_size) float32 each, at least one vector in each.
    """
    scores = np.zeros((len(queries), len(pages)), np.float32)
    if not queries or not pages:
        return scores
    rows = mx.array(np.concatenate(queries))
    lengths = [len(page) for page in pages]
    starts = np.cumsum([0, *(len(query) for query in queries[:-1])])
    first = 0
    for count in _steps(lengths, MAX_PRODUCTS // len(rows)):
        some = slice(first, first + count)
        best = np.array(best_products(rows, mx.array(np.concatenate(pages[some])), lengths[some]))
        scores[:, some] = np.add.reduceat(best, starts, axis=0)
        first += count
    return scores


def best_products(query_rows: mx.array, page_rows: mx.array, lengths: Sequence[int]) -> mx.array:
    """Of each query vector with each page, the best product; lazily.

    Args:
        query_rows: (num_query_vectors, vector_size) float32.
        page_rows: (sum of lengths, vector_size) float32, page by page.
        lengths: vectors of each page.

    Returns:
        (num_query_vectors, num_pages) float32.
    """
    products = query_rows @ page_rows.T
    parts, start = [], 0
    for length, group in groupby(lengths):  # neighbours of one length are one reduction; nothing is padded
        count = len(list(group))
        own = products[:, start : start + count * length]
        parts.append(own.reshape(len(query_rows), count, length).max(axis=-1))
        start += count * length
    return mx.concatenate(parts, axis=1)


def _steps(lengths: Sequence[int], most_rows: int) -> Iterator[int]:
    """How many pages to take at a time, so that they have at most so many vectors, or are a single page."""
    count = rows = 0
    for length in lengths:
        if count and rows + length > most_rows:
            yield count
            count = rows = 0
        count, rows = count + 1, rows + length
    if count:
        yield count
