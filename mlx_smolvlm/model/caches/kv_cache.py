"""Keys and values of the tokens read so far, and attention over them."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np


class KVCache:
    """One layer's keys and values, side by side in a buffer with room for more.

    The buffer, (1, 2 * num_key_value_heads, capacity, head_dim) with the heads of the keys first, is written in place.
    It grows by whole steps and by at least a quarter, so that what is held is copied a few times, not once per step.
    """

    STEP = 256  # tokens

    def __init__(self) -> None:
        self.buffer: mx.array | None = None
        self.offset = 0  # tokens held

    @property
    def state(self) -> list[mx.array]:
        """The arrays that are held."""
        return [] if self.buffer is None else [self.buffer]

    def positions(self, num_tokens: int) -> np.ndarray:
        """Of the next tokens, (num_tokens,) int32."""
        return np.arange(self.offset, self.offset + num_tokens, dtype=np.int32)

    def attend(self, queries: mx.array, keys_values: mx.array, scale: float) -> mx.array:
        """Append the keys and values of some tokens, and let each of these see itself and all before it.

        Args:
            queries: (1, num_attention_heads, num_tokens, head_dim), rotated.
            keys_values: (1, 2 * num_key_value_heads, num_tokens, head_dim), keys first and rotated.
            scale: of the products of queries and keys.

        Returns:
            Of the shape of `queries`.
        """
        mask = "causal" if queries.shape[2] > 1 else None
        keys, values = mx.split(self.append(keys_values), 2, 1)
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)

    def append(self, keys_values: mx.array) -> mx.array:
        """Write keys and values behind those held; returns all, (1, 2 * num_key_value_heads, offset, head_dim)."""
        end = self.offset + keys_values.shape[2]
        buffer = self.buffer
        if buffer is None or end > buffer.shape[2]:
            buffer = self._grown(end, keys_values)
        buffer[:, :, self.offset : end] = keys_values
        self.buffer, self.offset = buffer, end
        return buffer[:, :, :end]

    def held(self, length: int) -> list[mx.array]:
        """What is held of the first `length` tokens, (1, 2 * num_key_value_heads, length, ...) each."""
        return [array[:, :, :length] for array in self.state]

    def fill(self, held: Sequence[mx.array]) -> None:
        """Fill an empty cache with what another one of its kind held."""
        self.append(held[0])

    def trim(self, offset: int) -> bool:
        """Forget all but the first `offset` tokens; False if that cannot be done."""
        self.offset = min(self.offset, offset)
        return True

    def _grown(self, end: int, like: mx.array) -> mx.array:
        held = 0 if self.buffer is None else self.buffer.shape[2]
        capacity = -(-max(end, held + held // 4) // self.STEP) * self.STEP
        room = mx.zeros((*like.shape[:2], capacity - held, like.shape[3]), like.dtype)
        return room if self.buffer is None else mx.concatenate([self.buffer, room], axis=2)
