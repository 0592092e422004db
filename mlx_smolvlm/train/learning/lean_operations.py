"""Attention and SwiGLU whose gradients need little more than what goes in: scores are computed again.

MLX's own gradients keep all in between, of all layers, until the way back. What is written out here takes fewer
operations than those, so that it takes no longer.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, cast

import mlx.core as mx
import numpy as np

from ...model.layers.activations import compiled_on_gpu, swiglu

_QUERIES_ON_CPU, _QUERIES_ON_GPU = 128, 1024  # at a time: fewer compute fewer scores of later keys, in more kernels
SHORT_ROW = 64  # tokens: scores of such rows are few, and the gradients here would take longer to begin than to compute

Mask = Callable[[int, int, mx.Dtype], mx.array]


def causal_mask(num_queries: int, num_keys: int, dtype: mx.Dtype) -> mx.array:
    """What is added to scores of the last tokens, (num_queries, num_keys): hides from each those after it."""
    hidden = np.triu(np.full((num_queries, num_keys), -np.inf, np.float32), 1 + num_keys - num_queries)
    return mx.array(hidden).astype(dtype)


def lean_attention(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: Mask) -> mx.array:
    """Causal attention of one row of data, some queries at a time.

    Args:
        queries: (1, num_attention_heads, length, head_dim).
        keys, values: (1, num_key_value_heads, length, head_dim).
        scale: of the products of queries and keys.
        mask: `causal_mask`, which may keep what it has made.

    Returns:
        Of the shape of `queries`.
    """
    length = queries.shape[2]
    if length <= SHORT_ROW:
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask="causal")
    count = -(-length // (_QUERIES_ON_GPU if mx.default_device() == mx.gpu else _QUERIES_ON_CPU))
    ends = [number * length // count for number in range(count + 1)]
    outs = []
    for start, end in pairwise(ends):
        seen = slice(0, end)
        own_mask = mask(end - start, end, queries.dtype)
        outs.append(_attend(queries[:, :, start:end], keys[:, :, seen], values[:, :, seen], scale, own_mask))
    return mx.concatenate(outs, axis=2)


def _attend(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: mx.array) -> mx.array:
    """Attention of the last tokens, or of all."""
    stream = mx.default_stream(mx.default_device())

    @mx.custom_function
    def attend(arrays: list[mx.array]) -> mx.array:
        hides: Any = "causal" if mx.default_device() == mx.gpu else mask  # a CPU would make the mask in each layer
        return mx.fast.scaled_dot_product_attention(*arrays, scale=scale, mask=hides)

    @attend.vjp
    def way_back(arrays: list[mx.array], slope: mx.array, _: mx.array) -> list[mx.array]:
        with mx.stream(stream):
            waiting = mx.depends(arrays, [slope])  # MLX would otherwise begin with all layers at once
            return _attention_slopes(waiting, slope, scale, mask)

    return cast(mx.array, attend([queries, keys, values]))


def _attention_slopes(arrays: Sequence[mx.array], slope: mx.array, scale: float, mask: mx.array) -> list[mx.array]:
    """Of queries, keys and values, from these and the slope of the output."""
    queries, keys, values = arrays
    heads, num_queries = queries.shape[1:3]
    kv_heads = keys.shape[1]
    k, v = keys[0], values[0]
    rows = (kv_heads, heads // kv_heads * num_queries, -1)  # heads that share keys and values are one matrix
    q, slope_of = (queries * scale).reshape(rows), slope.reshape(rows)
    scores = (q @ k.swapaxes(1, 2)).reshape(kv_heads, -1, *mask.shape) + mask
    shares = mx.softmax(scores, axis=-1, precise=True).reshape(rows)
    changes = slope_of @ v.swapaxes(1, 2)
    changes = shares * (changes - (shares * changes).sum(-1, keepdims=True))
    return [
        (changes @ k * scale).reshape(queries.shape),
        (changes.swapaxes(1, 2) @ q)[None],
        (shares.swapaxes(1, 2) @ slope_of)[None],
    ]


def lean_swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """silu(gate) * up."""
    stream = mx.default_stream(mx.default_device())
    sigmoids: list[mx.array] = []

    @mx.custom_function
    def activate(arrays: list[mx.array]) -> mx.array:
        if mx.default_device() == mx.gpu:
            return compiled_on_gpu(swiglu)(*arrays)
        gate, up = arrays
        sigmoids.append(mx.sigmoid(gate))  # kept: on a CPU it takes as long as all else of this
        return gate * sigmoids[0] * up

    @activate.vjp
    def way_back(arrays: list[mx.array], slope: mx.array, _: mx.array) -> Any:
        with mx.stream(stream):
            waiting = mx.depends([*arrays, *sigmoids], [slope])
            return list(compiled_on_gpu(_swiglu_slopes)(slope, *waiting))

    return cast(mx.array, activate([gate, up]))


def _swiglu_slopes(slope: mx.array, gate: mx.array, up: mx.array, sigmoid: mx.array | None = None) -> Any:
    if sigmoid is None:
        sigmoid = mx.sigmoid(gate)
    activated = gate * sigmoid
    return slope * up * (sigmoid + activated * (1 - sigmoid)), slope * activated
