"""MaxSim of float16 pages on a CPU.

MLX and numpy make float32 of float16 number by number there, which takes twice the time of the products. Here it is
done by whole arrays of bits, in blocks that stay in a core's cache.
"""

from collections.abc import Iterator, Sequence

import numpy as np

NOT_FINITE = "the index holds vectors that are not finite (NaN or infinity); run python -m mlx_smolvlm.index again"
_BLOCK_BYTES = 2**20  # of a block's float32 vectors, beside which a core's cache holds the products
_QUERY_VECTORS = 32  # that are compared at a time
_MOST_PRODUCTS = 2**17  # of one matrix product: OpenBLAS would share larger ones among cores, which are busy
_FRACTION_BITS = 23 - 10  # more of them in float32
_SIGN_AND_DIGITS = np.int32(-0x70002000)  # 0x8fffe000: of a float16 that is moved by as many bits
_EXPONENT = np.float32(2.0 ** (127 - 15))  # between the biases of both types
_INFINITY, _NEGATIVE_INFINITY = 0x7C00, 0xFC00  # NaNs follow


def cpu_scores(query: np.ndarray, vectors: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    """The scores of pages; numpy leaves other threads their time meanwhile.

    Args:
        query: (num_query_vectors, vector_size) float32.
        vectors: (sum of lengths, vector_size) float16, page by page.
        lengths: vectors of each page, at least 1.

    Returns:
        (num_pages,) float32.

    Raises:
        ValueError: vectors that are not finite.
    """
    scores = np.zeros(len(lengths), np.float32)
    size = vectors.shape[1]
    ends = np.cumsum(lengths)
    starts = ends - lengths
    most_rows = max(_BLOCK_BYTES // (4 * size), max(lengths))
    rows_with_rest = most_rows + _MOST_PRODUCTS // size  # of `_products`
    widened = np.zeros((rows_with_rest, size), np.int32)
    room = np.empty(rows_with_rest * min(len(query), _QUERY_VECTORS), np.float32)
    firsts = range(0, len(query), _QUERY_VECTORS)
    columns = [np.ascontiguousarray(query[first : first + _QUERY_VECTORS].T) for first in firsts]
    for first, last in _blocks(ends, most_rows):
        start, count = starts[first], ends[last - 1] - starts[first]
        widen(vectors[start : start + count], widened[:count])
        for some in columns:
            products = _products(widened.view(np.float32), some, count, room)
            best = np.maximum.reduceat(products, starts[first:last] - start, axis=0)
            scores[first:last] += best.sum(axis=1)
    return scores


def _products(vectors: np.ndarray, columns: np.ndarray, count: int, room: np.ndarray) -> np.ndarray:
    """The first `count` vectors' products with the query's, (count, num_query_vectors), as a view of `room`."""
    size, width = columns.shape
    rows = max(1, _MOST_PRODUCTS // (size * width))
    num_parts = -(-count // rows)  # the last may have more rows than are wanted
    parts = vectors[: num_parts * rows].reshape(num_parts, rows, size)
    products = room[: num_parts * rows * width].reshape(num_parts, rows, width)
    return np.matmul(parts, columns, out=products).reshape(-1, width)[:count]


def widen(vectors: np.ndarray, room: np.ndarray) -> np.ndarray:
    """float16 as float32, exactly.

    Args:
        vectors: float16 of any shape.
        room: int32 of the same shape, which is overwritten: the result is a view of it.

    Raises:
        ValueError: vectors that are not finite.
    """
    if not are_finite(vectors):
        raise ValueError(NOT_FINITE)
    np.copyto(room, vectors.view(np.int16))  # spreads the sign over the upper half
    np.left_shift(room, _FRACTION_BITS, out=room)
    np.bitwise_and(room, _SIGN_AND_DIGITS, out=room)
    numbers = room.view(np.float32)
    return np.multiply(numbers, _EXPONENT, out=numbers)


def are_finite(vectors: np.ndarray) -> bool:
    """Whether float16 vectors hold neither NaN nor infinity; a file that is mapped is read block by block."""
    flat, step = vectors.reshape(-1), max(1, _BLOCK_BYTES // 2)
    blocks = (flat[first : first + step] for first in range(0, len(flat), step))
    return not any(
        block.view(np.int16).max() >= _INFINITY or block.view(np.uint16).max() >= _NEGATIVE_INFINITY for block in blocks
    )


def _blocks(ends: np.ndarray, most_rows: int) -> Iterator[tuple[int, int]]:
    """The first page of each block and the one behind its last; a block has at most so many vectors."""
    first = start = 0
    while first < len(ends):
        last = int(np.searchsorted(ends, start + most_rows, side="right"))
        yield first, last
        first, start = last, int(ends[last - 1])
