"""Keys and values of the tokens read so far."""

import mlx.core as mx


class KVCache:
    """One layer's keys and values, (1, num_key_value_heads, offset, head_dim), in a buffer that grows by steps.

    A step copies what is held once per `STEP` tokens rather than once per token.
    """

    STEP = 256  # tokens

    def __init__(self) -> None:
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self.offset = 0  # tokens held

    def update(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append keys and values, (1, num_key_value_heads, num_tokens, head_dim); returns all that is held."""
        end = self.offset + keys.shape[2]
        if self.keys is None or self.values is None:
            capacity = -(-end // self.STEP) * self.STEP
            self.keys = mx.zeros((*keys.shape[:2], capacity, keys.shape[3]), keys.dtype)
            self.values = mx.zeros((*values.shape[:2], capacity, values.shape[3]), values.dtype)
        elif end > self.keys.shape[2]:
            grown = -(-end // self.STEP) * self.STEP - self.keys.shape[2]
            room = (*keys.shape[:2], grown, keys.shape[3])
            self.keys = mx.concatenate([self.keys, mx.zeros(room, keys.dtype)], axis=2)
            self.values = mx.concatenate([self.values, mx.zeros(room, values.dtype)], axis=2)
        self.keys[:, :, self.offset : end] = keys
        self.values[:, :, self.offset : end] = values
        self.offset = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def trim(self, offset: int) -> None:
        """Forget all but the first `offset` tokens."""
        self.offset = min(self.offset, offset)
