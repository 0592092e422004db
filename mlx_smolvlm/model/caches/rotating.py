"""A cache that sees the beginning and the latest tokens of a context, however long it grows."""

import mlx.core as mx
import numpy as np

from ...options import ROTATING_KEEP as KEEP
from .kv_cache import KVCache


class RotatingKVCache(KVCache):
    """One layer's keys and values of at most `max_size` tokens.

    A token sees itself, those just before it and the first `KEEP`, `max_size` in all, in whatever chunks the
    context is read. Positions go on counting: what is forgotten leaves a gap.
    """

    def __init__(self, max_size: int):
        super().__init__()
        self._max_size = max_size
        self._window = max_size - KEEP  # the latest tokens, the current one included

    def attend(self, queries: mx.array, keys_values: mx.array, scale: float) -> mx.array:
        """As `KVCache.attend`, within the window."""
        num_tokens = queries.shape[2]
        if self.offset + num_tokens <= self._max_size:
            return super().attend(queries, keys_values, scale)
        new = np.arange(self.offset, self.offset + num_tokens)
        if num_tokens == 1:
            held, mask = self._write(keys_values, new)[:, :, : self._max_size], None
        else:  # tokens of a chunk see others that the chunk's end evicts, so all are used before any is evicted
            before = self._held_positions()
            positions = np.concatenate([before, new])
            visible = (positions <= new[:, None]) & ((positions < KEEP) | (positions > new[:, None] - self._window))
            mask = mx.array(visible)
            held = keys_values
            if self.buffer is not None and len(before):
                held = mx.concatenate([self.buffer[:, :, : len(before)], keys_values], axis=2)
            staying = (new < KEEP) | (new > new[-1] - self._window)
            self._write(keys_values[:, :, mx.array(np.flatnonzero(staying))], new[staying])
        self.offset += num_tokens
        keys, values = mx.split(held, 2, axis=1)
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)

    def trim(self, offset: int) -> bool:
        """As `KVCache.trim`; False, with nothing changed, once tokens have been forgotten."""
        if offset >= self.offset:
            return True
        if self.offset > self._max_size and offset > 0:
            return False
        return super().trim(offset)

    def _held_positions(self) -> np.ndarray:
        """Of the tokens in the buffer, slot by slot."""
        slots = np.arange(min(self.offset, self._max_size))
        turns = (self.offset - 1 - slots) // self._window
        return np.where(slots < KEEP, slots, slots + turns * self._window)

    def _write(self, keys_values: mx.array, positions: np.ndarray) -> mx.array:
        """The buffer with tokens in their slots: the latest takes that of the one it pushes out of the window."""
        buffer = self.buffer
        if buffer is None or buffer.shape[2] < self._max_size:  # MLX does not check where it writes
            buffer = self._grown(self._max_size, keys_values)
        slots = np.where(positions < KEEP, positions, KEEP + (positions - KEEP) % self._window)
        if len(slots) == 1:
            buffer[:, :, slots[0] : slots[0] + 1] = keys_values
        else:
            buffer[:, :, mx.array(slots)] = keys_values
        self.buffer = buffer
        return buffer
