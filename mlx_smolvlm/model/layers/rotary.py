"""Rotary position embeddings of a step's tokens, for the heads of queries, keys and values at once.

Port of transformers, `models/llama/modeling_llama.py`; Llama 3's frequency scaling after `modeling_rope_utils.py`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np

from ..config import TextConfig

Rotate = Callable[[mx.array], mx.array]


def wavelengths(config: TextConfig) -> mx.array:
    """Reciprocal rotary frequencies, (head_dim / 2,) float32, as `mx.fast.rope` takes them in `freqs`.

    With Llama 3's scaling, short ones stay, long ones are stretched by the factor, those between are interpolated.
    """
    head_dim, scaling = config.head_dim, config.rope_scaling
    plain = config.rope_theta ** (mx.arange(0, head_dim, 2).astype(mx.float32) / head_dim)
    if scaling is None:
        return plain
    turns = scaling.original_max_position_embeddings / (2 * math.pi * plain)  # within the original context
    smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    smooth = mx.clip(smooth, 0, 1)
    return 1 / ((1 - smooth) / (scaling.factor * plain) + smooth / plain)


class RotaryEmbedding:
    """Rotates heads by position; the halves of the head dimension are paired, as in Llama.

    Queries, keys and values come as one array. A GPU rotates it in one kernel, each head by its own position, which
    is 0 for values: no rotation. A CPU has no such kernel: MLX would compute all sines and cosines again in every
    layer, so there they are computed once per step.
    """

    def __init__(self, config: TextConfig):
        self._wavelengths = wavelengths(config)
        mx.eval(self._wavelengths)  # an unevaluated array could not be used in another thread
        scaled = config.rope_scaling is not None
        self._options: dict[str, Any] = {  # of MLX's kernel
            "dims": config.head_dim,
            "traditional": False,
            "base": None if scaled else config.rope_theta,
            "scale": 1.0,
            "freqs": self._wavelengths if scaled else None,
        }
        turning = config.num_attention_heads + config.num_key_value_heads
        self._turns = np.array([1] * turning + [0] * config.num_key_value_heads, np.int32)

    def at(self, token_positions: np.ndarray) -> Rotate:
        """The rotation of tokens at these positions, (num_tokens,) int32, the same in every layer.

        It maps (num_tokens * num_heads, 1, head_dim), the heads of a token being those of its queries, its keys and
        its values, in this order, to the same shape.
        """
        positions = mx.array(np.outer(token_positions, self._turns).ravel())
        if mx.default_device() == mx.gpu:
            return partial(mx.fast.rope, offset=positions, **self._options)
        angles = positions[:, None, None] / self._wavelengths
        cos, sin = mx.cos(angles), mx.sin(angles)
        return partial(_turn, mx.concatenate([cos, cos], axis=-1), mx.concatenate([-sin, sin], axis=-1))


def _turn(cos: mx.array, sin: mx.array, heads: mx.array) -> mx.array:
    left, right = mx.split(heads, 2, axis=-1)
    return (heads * cos + mx.concatenate([right, left], axis=-1) * sin).astype(heads.dtype)
