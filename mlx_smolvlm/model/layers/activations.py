"""Element-wise chains of the networks: one fused kernel on a GPU.

On the CPU, MLX compiles such a kernel with the system's C++ compiler when it is first used: seconds of
waiting for a tiny gain, and an error where there is no compiler. There the plain operations run instead.
"""

import math
from collections.abc import Callable
from functools import cache

import mlx.core as mx

Activation = Callable[..., mx.array]

_SLOPE = 2 * math.sqrt(2 / math.pi)


def compiled_on_gpu(function: Activation) -> Activation:
    """An element-wise chain, one of those here, as one kernel where that is a gain."""
    return _compiled(function) if mx.default_device() == mx.gpu else function


@cache
def _compiled(function: Activation) -> Activation:
    return mx.compile(function, shapeless=True)


def gelu_tanh(x: mx.array) -> mx.array:
    """GELU by its tanh approximation, `gelu_pytorch_tanh` in configurations.

    (1 + tanh(z)) / 2 is sigmoid(2 z), which takes fewer operations.
    """
    return x * mx.sigmoid(x * (_SLOPE + _SLOPE * 0.044715 * (x * x)))


def swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """silu(gate) * up."""
    return gate * mx.sigmoid(gate) * up
