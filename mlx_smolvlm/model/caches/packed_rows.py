"""Prompts that are read together, one behind the other, and none of which is continued."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import mlx.core as mx
import numpy as np

from .kv_cache import KVCache


class PackedRows(KVCache):
    """The cache of all layers when several whole prompts are read as one sequence: each token sees its own prompt only.

    Nothing is padded and nothing is kept, so products are done once for all prompts, whatever their lengths.
    """

    def __init__(self, lengths: Sequence[int]):
        """`lengths`: tokens of each prompt, in order."""
        super().__init__()
        self._positions = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
        self._spans = list(pairwise([0, *accumulate(lengths)]))

    def positions(self, num_tokens: int) -> np.ndarray:
        """Of the tokens, each within its prompt, (num_tokens,) int32."""
        return self._positions

    def attend(self, queries: mx.array, keys_values: mx.array, scale: float) -> mx.array:
        """As `KVCache.attend`, for each prompt apart."""
        keys, values = mx.split(keys_values, 2, 1)
        parts = []
        for start, end in self._spans:
            own = queries[:, :, start:end], keys[:, :, start:end], values[:, :, start:end]
            mask = "causal" if end - start > 1 else None
            parts.append(mx.fast.scaled_dot_product_attention(*own, scale=scale, mask=mask))
        return mx.concatenate(parts, axis=2)
