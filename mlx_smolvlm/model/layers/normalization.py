"""Root-mean-square normalization, in as few kernels as the device allows."""

from collections.abc import Callable
from functools import partial

import mlx.core as mx
import mlx.nn as nn

Normalize = Callable[[nn.Module, mx.array], mx.array]


def normalization(x: mx.array, eps: float) -> Normalize:
    """What applies `nn.RMSNorm` layers, or others in their place, to tokens like `x`, (1, num_tokens, dims).

    A GPU has a kernel for it. MLX's CPU backend makes it of seven, and starting them is what a single token costs
    there; by a product of the token with itself, four are enough. `eps` is that of most layers: others take the usual
    way.
    """
    if x.shape[1] == 1 and x.dtype == mx.float32 and mx.default_device() == mx.cpu:
        return partial(_normalize_token, eps, mx.full((1, 1, 1), eps), 1 / x.shape[2])
    return _normalize


def _normalize(layer: nn.Module, x: mx.array) -> mx.array:
    return mx.fast.rms_norm(x, layer["weight"], layer.eps) if type(layer) is nn.RMSNorm else layer(x)


def _normalize_token(eps: float, eps_array: mx.array, share: float, layer: nn.Module, x: mx.array) -> mx.array:
    if type(layer) is not nn.RMSNorm or layer.eps != eps:
        return layer(x)
    mean_square = mx.addmm(eps_array, x, x.swapaxes(1, 2), alpha=share)  # with eps
    return x * mx.rsqrt(mean_square) * layer["weight"]
