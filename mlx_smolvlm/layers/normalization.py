"""Root-mean-square normalization, in as few kernels as the device allows."""

import mlx.core as mx
import mlx.nn as nn


class RMSNorm(nn.RMSNorm):
    """`nn.RMSNorm`, quicker for single tokens on a CPU.

    A GPU has a kernel for it. MLX's CPU backend makes it of seven, and starting them is what a token costs there; as
    a product of the token with itself, four are enough.
    """

    def __init__(self, dims: int, eps: float):
        super().__init__(dims, eps)
        self._share = 1 / dims
        self._eps = mx.array([[[eps]]])

    def __call__(self, x: mx.array) -> mx.array:
        """(1, num_tokens, dims) -> the same shape and type."""
        if x.shape[1] == 1 and x.dtype == mx.float32 and mx.default_device() == mx.cpu:
            mean_square = mx.addmm(self["_eps"], x, x.swapaxes(1, 2), alpha=self._share)  # eps included
            return x * mx.rsqrt(mean_square) * self["weight"]
        return mx.fast.rms_norm(x, self["weight"], self.eps)
