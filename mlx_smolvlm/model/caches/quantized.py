"""A cache of quantized keys and values: a quarter to an eighth of the memory."""

import mlx.core as mx

from .kv_cache import KVCache

Quantized = tuple[mx.array, mx.array, mx.array]  # codes, scales, biases


class QuantizedKVCache(KVCache):
    """One layer's keys and values, quantized along the head dimension once more than `start` tokens are held.

    A few queries are multiplied with the codes; for many, the layer's keys and values are unpacked for as long as
    its attention takes, which lets MLX's own attention run.
    """

    FEW = 8  # tokens

    def __init__(self, bits: int, group_size: int, start: int):
        super().__init__()
        self._bits = bits
        self._group_size = group_size
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
            whole = mx.dequantize(codes, scales, biases, self._group_size, self._bits)
            keys, values = mx.split(whole, 2, axis=1)
            return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask="causal")
        return self._attend_few(queries, (codes, scales, biases), scale)

    def trim(self, offset: int) -> bool:
        """Forget all but the first `offset` tokens."""
        for part in self._stored:
            part.trim(offset)
        return super().trim(offset)

    def _store(self, keys_values: mx.array) -> Quantized:
        codes, scales, biases = self._stored
        new = mx.quantize(keys_values, self._group_size, self._bits)
        return codes.append(new[0]), scales.append(new[1]), biases.append(new[2])

    def _attend_few(self, queries: mx.array, held: Quantized, scale: float) -> mx.array:
        _, num_heads, num_tokens, head_dim = queries.shape
        kv_heads, length = held[0].shape[1] // 2, held[0].shape[2]
        codes, scales, biases = (part.reshape(1, 2, kv_heads, 1, length, -1) for part in held)
        grouped = (queries * scale).reshape(1, kv_heads, num_heads // kv_heads, num_tokens, head_dim)
        scores = mx.quantized_matmul(
            grouped, codes[:, 0], scales[:, 0], biases[:, 0], True, self._group_size, self._bits
        )
        if num_tokens > 1:
            late = mx.arange(length) > mx.arange(length - num_tokens, length)[:, None]
            scores = mx.where(late, -mx.inf, scores)
        weights = mx.softmax(scores, axis=-1, precise=True)
        out = mx.quantized_matmul(weights, codes[:, 1], scales[:, 1], biases[:, 1], False, self._group_size, self._bits)
        return out.reshape(1, num_heads, num_tokens, head_dim)
