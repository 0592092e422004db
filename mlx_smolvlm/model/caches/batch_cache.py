"""Keys and values of several conversations that are decoded together, a token of each in every step.

To the decoder, such a step is one of as many tokens as there are rows; what each token sees is decided here.
"""

from collections.abc import Sequence
from functools import partial

import mlx.core as mx
import numpy as np

from ..config import TextConfig
from .kv_cache import KVCache
from .quantized import Quantization


class BatchCache:
    """A row of keys and values for each conversation, in all layers.

    Rows are filled with what another cache has read (`put`), grow by a token in each step, and are used again for
    others. A row without a conversation computes along; what comes out of it means nothing.

    Attributes:
        lengths: (num_rows,) int32, tokens held by each row.
        layers: what `LanguageModel` takes as its cache.
    """

    def __init__(self, config: TextConfig, itemsize: int, quantization: Quantization | None = None):
        """
        Args:
            config: the decoder's.
            itemsize: bytes of a number that it computes with.
            quantization: of the keys and values; None keeps them as they are.
        """
        self._quantization = quantization
        self._head_dim = config.head_dim
        self._itemsize = itemsize
        self._heads = config.num_attention_heads
        self._kv_heads = config.num_key_value_heads
        self.lengths = np.zeros(0, np.int32)
        make = BatchLayer if quantization is None else partial(QuantizedBatchLayer, quantization)
        self._layers = [make(self) for _ in range(config.num_hidden_layers)]
        self.layers: list[KVCache] = list(self._layers)
        self.end = 0  # columns that are looked at in this step
        self.mask = mx.zeros(0)
        self.columns = self.rows = mx.zeros(0)

    @property
    def num_rows(self) -> int:
        """Rows, whether or not there is a conversation in them."""
        return len(self.lengths)

    def bytes_per_row(self, length: int) -> int:
        """Memory for a row of so many tokens."""
        columns = -(-length // KVCache.STEP) * KVCache.STEP
        head_bytes: float = self._head_dim * self._itemsize
        if self._quantization is not None:
            bits, group_size = self._quantization
            head_bytes = self._head_dim * (bits / 8 + 2 * self._itemsize / group_size)
        return int(columns * 2 * len(self.layers) * self._kv_heads * head_bytes)

    def put(self, row: int, layers: Sequence[KVCache]) -> None:
        """Fill a row with what another cache, one of `LanguageModel.make_cache`, holds."""
        self.lengths[row] = layers[0].offset
        for layer, source in zip(self._layers, layers, strict=True):
            layer.put(row, source)
        mx.eval([layer.state for layer in self.layers])

    def arrange(self, rows: Sequence[int], num_rows: int) -> None:
        """Keep some rows, in this order, and add empty ones up to `num_rows`."""
        end = max((int(self.lengths[row]) for row in rows), default=0) + 1
        for layer in self._layers:
            layer.arrange(rows, num_rows, end)
            mx.eval(layer.state)  # one layer at a time is held twice
        lengths = np.zeros(num_rows, np.int32)
        lengths[: len(rows)] = self.lengths[list(rows)]
        self.lengths = lengths

    def begin_step(self) -> None:
        """Before a step: what its tokens see, the same in every layer."""
        self.end = int(self.lengths.max()) + 1
        lengths = mx.array(self.lengths)
        seen = mx.arange(self.end) <= lengths[:, None]  # (num_rows, end)
        heads = self._heads if self._quantization is None else self._kv_heads
        self.mask = mx.repeat(seen, heads, axis=0)[None, :, None]  # (1, num_rows * heads, 1, end)
        self.columns = mx.repeat(lengths, self._kv_heads)
        self.rows = mx.arange(self.num_rows * self._kv_heads)

    def end_step(self, rows: Sequence[int]) -> None:
        """After a step: these rows are a token longer, and nothing is left in the others."""
        lengths = np.zeros_like(self.lengths)
        lengths[list(rows)] = self.lengths[list(rows)] + 1
        self.lengths = lengths

    def row(self, row: int, length: int) -> list[list[mx.array]]:
        """Copies of what is held of a row's first tokens by layer, as `KVCache.held` returns it, evaluated."""
        copies = [layer.row(row, length) for layer in self._layers]
        mx.eval(copies)
        return copies


class BatchLayer(KVCache):
    """One layer of a `BatchCache`.

    The buffer is (2, num_rows * num_key_value_heads, capacity, head_dim), keys and values apart: each half then is
    what attention takes without a copy, as one sequence with as many heads as all rows have together.
    """

    def __init__(self, batch: BatchCache):
        super().__init__()
        self._batch = batch
        self._buffers: list[mx.array] = []  # one here; three where keys and values are quantized

    @property
    def state(self) -> list[mx.array]:
        """The arrays that are held."""
        return list(self._buffers)

    def positions(self, num_tokens: int) -> np.ndarray:
        """Of the next token of each row, (num_rows,) int32."""
        return self._batch.lengths

    def attend(self, queries: mx.array, keys_values: mx.array, scale: float) -> mx.array:
        """As `KVCache.attend`, but the tokens are those of the rows, and each sees what its own row holds."""
        _, num_heads, num_rows, head_dim = queries.shape
        new = keys_values.reshape(2, -1, num_rows, head_dim).transpose(0, 2, 1, 3).reshape(2, -1, head_dim)
        queries = queries.transpose(0, 2, 1, 3).reshape(1, num_rows * num_heads, 1, head_dim)
        out = self._attend_rows(queries, new, scale)
        return out.reshape(1, num_rows, num_heads, head_dim).transpose(0, 2, 1, 3)

    def _attend_rows(self, queries: mx.array, new: mx.array, scale: float) -> mx.array:
        """Write the tokens' keys and values, (2, num_rows * num_key_value_heads, head_dim), and attend.

        (1, num_rows * num_attention_heads, 1, head_dim) -> the same number of elements.
        """
        keys, values = self._write([new])[0]
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=self._batch.mask)

    def _write(self, new: Sequence[mx.array]) -> list[mx.array]:
        """Write what is held of the tokens; returns all, (2, 1, num_rows * num_key_value_heads, end, ...) each."""
        batch = self._batch
        for number, part in enumerate(new):
            buffer = self._with_capacity(self._buffers[number], batch.end)
            buffer[:, batch.rows, batch.columns] = part
            self._buffers[number] = buffer
        return [buffer[:, None, :, : batch.end] for buffer in self._buffers]

    def put(self, row: int, source: KVCache) -> None:
        """Fill a row, beginning with its first column; the rest of it becomes zero."""
        for number, part in enumerate(self._as_held(source.held(source.offset))):
            kv_heads = part.shape[1] // 2
            held = part.reshape(2, kv_heads, source.offset, -1)
            if number == len(self._buffers):
                self._buffers.append(mx.zeros((2, self._batch.num_rows * kv_heads, 0, held.shape[3]), held.dtype))
            buffer = self._with_capacity(self._buffers[number], source.offset + 1)
            heads = slice(row * kv_heads, (row + 1) * kv_heads)
            buffer[:, heads, : source.offset] = held
            buffer[:, heads, source.offset :] = 0  # a masked value that is not finite would still spoil the sum
            self._buffers[number] = buffer

    def _as_held(self, held: Sequence[mx.array]) -> Sequence[mx.array]:
        """What another cache holds, in the form of this one."""
        return held

    def row(self, row: int, length: int) -> list[mx.array]:
        """What is held of the first tokens of a row, as `KVCache.held` returns it."""
        copies = []
        for buffer in self._buffers:
            kv_heads = buffer.shape[1] // self._batch.num_rows
            held = buffer[:, row * kv_heads : (row + 1) * kv_heads, :length]  # (2, kv_heads, length, ...)
            copies.append(mx.contiguous(held.reshape(1, 2 * kv_heads, length, -1)))
        return copies

    def arrange(self, rows: Sequence[int], num_rows: int, end: int) -> None:
        """As `BatchCache.arrange`, with room for `end` tokens."""
        if not num_rows:
            self._buffers = []
        for number, buffer in enumerate(self._buffers):
            _, all_heads, capacity, width = buffer.shape
            kv_heads = all_heads // self._batch.num_rows
            columns = min(capacity, -(-end // self.STEP) * self.STEP)
            kept = [buffer[:, row * kv_heads : (row + 1) * kv_heads, :columns] for row in rows]
            empty = mx.zeros((2, (num_rows - len(rows)) * kv_heads, columns, width), buffer.dtype)
            self._buffers[number] = mx.concatenate([*kept, empty], axis=1)

    def _with_capacity(self, buffer: mx.array, end: int) -> mx.array:
        if end <= buffer.shape[2]:
            return buffer
        more = -(-end // self.STEP) * self.STEP - buffer.shape[2]
        return mx.concatenate([buffer, mx.zeros((*buffer.shape[:2], more, buffer.shape[3]), buffer.dtype)], axis=2)


class QuantizedBatchLayer(BatchLayer):
    """The same with codes, scales and biases, each in a buffer of its own."""

    def __init__(self, quantization: Quantization, batch: BatchCache):
        super().__init__(batch)
        self._quantization = quantization

    def _attend_rows(self, queries: mx.array, new: mx.array, scale: float) -> mx.array:
        codes, scales, biases = (part[:, :, :, None] for part in self._write(self._quantization.quantize(new)))
        keys, values = ((codes[n], scales[n], biases[n]) for n in range(2))
        grouped = (queries * scale).reshape(1, new.shape[1], -1, 1, new.shape[2])
        return self._quantization.attend(grouped, keys, values, self._batch.mask[:, :, None])

    def _as_held(self, held: Sequence[mx.array]) -> Sequence[mx.array]:
        return self._quantization.quantize(held[0]) if len(held) == 1 else held


class GroupedLayer(KVCache):
    """One layer of several `BatchCache`s whose rows take a step together, those of the first cache first."""

    def __init__(self, layers: Sequence[KVCache], num_rows: Sequence[int]):
        super().__init__()
        self._layers = layers
        self._ends = np.cumsum(num_rows).tolist()

    def positions(self, num_tokens: int) -> np.ndarray:
        """Of the next token of each row, (num_rows,) int32."""
        return np.concatenate([layer.positions(num_tokens) for layer in self._layers])

    def attend(self, queries: mx.array, keys_values: mx.array, scale: float) -> mx.array:
        """As `BatchLayer.attend`, for each cache apart."""
        all_queries = mx.split(queries, self._ends[:-1], axis=2)
        all_new = mx.split(keys_values, self._ends[:-1], axis=2)
        parts = zip(self._layers, all_queries, all_new, strict=True)
        return mx.concatenate([layer.attend(own, new, scale) for layer, own, new in parts], axis=2)


def grouped_layers(caches: Sequence[BatchCache]) -> list[KVCache]:
    """What `LanguageModel` takes as its cache when the rows of several `BatchCache`s take a step together."""
    if len(caches) == 1:
        return caches[0].layers
    num_rows = [cache.num_rows for cache in caches]
    return [GroupedLayer(layers, num_rows) for layers in zip(*(cache.layers for cache in caches), strict=True)]
