"""A micro-batch in parts that a CPU computes side by side.

MLX computes on one core whatever is no matrix product. A GPU takes a micro-batch as a whole, and so do many cores,
which share the products.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import mlx.core as mx
import numpy as np

from .forward import MicroBatch

_TOKENS = 192  # of a part, at least: smaller products take longer to begin than to compute


def let_parts_run_together() -> None:
    """To be called before anything is evaluated in this process, else it has no effect.

    MLX goes through wide graphs, as gradients are, depth first, and has few operations in its queues at a time: one
    part would be nearly done before another begins. Breadth first, memory stays what it was.
    """
    if mx.default_device() == mx.cpu:
        os.environ.setdefault("MLX_BFS_MAX_WIDTH", "2000")


def parts_of(batch: MicroBatch) -> list[MicroBatch]:
    """Parts of whole rows, or whole pairs, with about as many tokens each, one for each core; or the batch itself.

    They depend on the batch and the number of cores alone, and so do the bits of what is added up from them.
    """
    num_tokens = len(batch.input_ids)
    count = (os.cpu_count() or 1) if mx.default_device() == mx.cpu else 1
    if count == 1 or num_tokens < count * _TOKENS:
        return [batch]
    step = 1 if batch.references is None else 2
    ends = _ends(batch.lengths)[::step]
    chosen = (ends[:-1] + ends[1:]) * count // (2 * num_tokens)  # the part in which the middle of a row or pair is
    bounds = step * np.flatnonzero(np.diff(chosen, prepend=-1, append=count))
    return [_part(batch, first, end) for first, end in pairwise(bounds.tolist())]


def _part(batch: MicroBatch, first: int, end: int) -> MicroBatch:
    """Some of the rows, one after the other."""
    tokens, tiles = (_ends(counts)[[first, end]] for counts in (batch.lengths, batch.tile_counts))
    places = np.searchsorted(batch.predicted, tokens)
    seq_len = 0 if batch.features is None else batch.features.shape[0] // sum(batch.tile_counts)
    has_tiles = tiles[0] < tiles[1]
    return replace(
        batch,
        names=batch.names[first:end],
        input_ids=batch.input_ids[slice(*tokens)],
        lengths=batch.lengths[first:end],
        predicted=batch.predicted[slice(*places)] - tokens[0].astype(np.int32),
        tiles=None if batch.tiles is None or not has_tiles else batch.tiles[slice(*tiles)],
        tile_counts=batch.tile_counts[first:end],
        features=None
        if not has_tiles or batch.features is None
        else batch.features[slice(*(tiles * seq_len).tolist())],
        references=None if batch.references is None else batch.references[first:end],
    )


def _ends(counts: Sequence[int]) -> np.ndarray:
    """0 and the sums of the first numbers."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(int)
