"""Element-wise chains of the networks: one fused kernel on a GPU.

On the CPU, MLX compiles such a kernel with the system's C++ compiler when it is first used: seconds of
waiting for a tiny gain, and an error where there is no compiler. There the plain operations run instead.
"""

import math
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import mlx.core as mx

_SLOPE = 2 * math.sqrt(2 / math.pi)


def _fused_on_gpu(function: Callable[..., mx.array]) -> Callable[..., mx.array]:
    compiled = partial(mx.compile, shapeless=True)(function)

    @wraps(function)
    def choose(*arrays: Any) -> mx.array:
        return compiled(*arrays) if mx.default_device() == mx.gpu else function(*arrays)

    return choose


@_fused_on_gpu
def gelu_tanh(x: mx.array) -> mx.array:
    """GELU by its tanh approximation, `gelu_pytorch_tanh` in configurations.

    (1 + tanh(z)) / 2 is sigmoid(2 z), which takes fewer operations.
    """
    return x * mx.sigmoid(x * (_SLOPE + _SLOPE * 0.044715 * (x * x)))


@_fused_on_gpu
def swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """silu(gate) * up."""
    return gate * mx.sigmoid(gate) * up
