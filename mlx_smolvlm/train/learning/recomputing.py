"""Functions that keep their inputs for the way back, rather than what they compute on the way."""

from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx


def recomputed(function: Callable[..., mx.array]) -> Callable[..., mx.array]:
    """A function of arrays whose values in between are computed again when its gradient is, and not before.

    As `mx.checkpoint`, but each call stays in the stream in which it was made, so that parts of a batch are computed
    side by side on the way back, too.
    """

    def call(*arrays: mx.array) -> mx.array:
        stream = mx.default_stream(mx.default_device())

        @mx.custom_function
        def kept(arrays: list[mx.array]) -> mx.array:
            return function(*arrays)

        @kept.vjp
        def way_back(arrays: list[mx.array], cotangent: mx.array, _: mx.array) -> list[mx.array]:
            with mx.stream(stream):
                waiting = mx.depends(list(arrays), [cotangent])  # MLX would otherwise begin with all layers at once
                return mx.vjp(function, waiting, [cotangent])[1]

        out: Any = kept(list(arrays))
        return cast(mx.array, out)

    return call
