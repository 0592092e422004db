"""A cache of quantized keys and values: a quarter to an eighth of the memory."""

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx

from .kv_cache import KVCache

Quantized = tuple[mx.array, mx.array, mx.array]  # codes, scales, biases


class Quantization(NamedTuple):
    """How keys and values are quantized along the head dimension: bits per number, and numbers that share a scale."""

    bits: int
    group_size: int

    def quantize(self, keys_values: mx.array) -> Quantized:
        """(..., head_dim) -> codes, scales and biases, (..., smaller) each."""
        codes, scales, biases = mx.quantize(keys_values, self.group_size, self.bits)
        return codes, scales, biases

    def attend(self, queries: mx.array, keys: Quantized, values: Quantized, mask: mx.array | None) -> mx.array:
        """Attention of a few queries by multiplication with the codes.

        Args:
            queries: (1, num_key_value_heads, heads in a group, num_tokens, head_dim), scaled.
            keys, values: (1, num_key_value_heads, 1, length, ...) each.
            mask: which keys are seen; None for all.

        Returns:
            Of the shape of `queries`.
        """
        layout = self.group_size, self.bits
        scores = mx.quantized_matmul(queries, keys[0], keys[1], keys[2], True, *layout)
        if mask is not None:
            scores = mx.where(mask, scores, -mx.inf)
        weights = mx.softmax(scores, axis=-1, precise=True)
        return mx.quantized_matmul(weights, values[0], values[1], values[2], False, *layout)


class QuantizedKVCache(KVCache):
    """One layer's keys and values, quantized along the head dimension once more than `start` tokens are held.

    A few queries are multiplied with the codes; for many, the layer's keys and values are unpacked for as long as
    its attention takes, which lets MLX's own attention run.
    """

    FEW = 8  # tokens

    def __init__(self, bits: int, group_size: int, start: int):
        super().__init__()
        self._quantization = Quantization(bits, group_size)
        self._start = start
        self._stored = [KVCache() for _ in range(3)]  # codes, scales and biases; empty before `start`

    @property
    def state(self) -> list[mx.array]:
        """The arrays that are held."""
        return super().state + [array for part in self._stored for array in part.state]

    def attend(self, queries: mx.array, keys_values: mx.array, scale: float) -> mx.array:
        """As `KVCache.attend`."""
        if self.offset + queries.shape[2] <= self._start and not self._stored[0].offset:
            return super().attend(queries, keys_values, scale)
        if self.buffer is not None and self.offset:
            self._store(self.buffer[:, :, : self.offset])
        self.buffer = None
        codes, scales, biases = self._store(keys_values)
        self.offset += queries.shape[2]
        if queries.shape[2] > self.FEW:
            bits, group_size = self._quantization
            whole = mx.dequantize(codes, scales, biases, group_size, bits)
            keys, values = mx.split(whole, 2, axis=1)
            return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask="causal")
        return self._attend_few(queries, (codes, scales, biases), scale)

    def fill(self, held: Sequence[mx.array]) -> None:
        """As `KVCache.fill`, from one that is quantized or from a plain one."""
        if len(held) == 1:
            super().fill(held)
            return
        for part, array in zip(self._stored, held, strict=True):
            part.append(array)
        self.offset = held[0].shape[2]

    def trim(self, offset: int) -> bool:
        """Forget all but the first `offset` tokens."""
        for part in self._stored:
            part.trim(offset)
        return super().trim(offset)

    def _store(self, keys_values: mx.array) -> Quantized:
        codes, scales, biases = self._stored
        new = self._quantization.quantize(keys_values)
        return codes.append(new[0]), scales.append(new[1]), biases.append(new[2])

    def _attend_few(self, queries: mx.array, held: Quantized, scale: float) -> mx.array:
        _, num_heads, num_tokens, head_dim = queries.shape
        kv_heads, length = held[0].shape[1] // 2, held[0].shape[2]
        codes, scales, biases = (part.reshape(1, 2, kv_heads, 1, length, -1) for part in held)
        grouped = (queries * scale).reshape(1, kv_heads, num_heads // kv_heads, num_tokens, head_dim)
        mask = None
        if num_tokens > 1:
            mask = mx.arange(length) <= mx.arange(length - num_tokens, length)[:, None]
        keys, values = ((codes[:, n], scales[:, n], biases[:, n]) for n in range(2))
        return self._quantization.attend(grouped, keys, values, mask).reshape(1, num_heads, num_tokens, head_dim)
