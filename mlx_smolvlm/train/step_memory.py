"""How much memory a run can take at most, from the sizes of rows and layers, and what fits into a given bound.

Counted is what MLX holds: weights, what is trained with its gradients and moments, and the activations of the largest
micro-batch. These are counted by layer, generously: each operation of a layer with its gradient's copy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..model.config import ModelConfig
from .forward import HEAD_CHUNK, TILES_AT_ONCE

_FIXED_BYTES = 64 * 1024**2  # buffers of no certain size
_COPIES = 7  # float32 arrays as large as what is trained: itself, two moments, gradients summed and new, updates
_OF_HIDDEN, _OF_HEADS, _OF_INNER, _OF_SCORES, _OF_LOGITS = 14, 8, 9, 5, 6
_HELD_HIDDEN = 2


@dataclass(frozen=True)
class RowSize:
    """What of a row takes memory."""

    num_tokens: int
    num_trained: int
    num_tiles: int


@dataclass(frozen=True)
class MemoryPlan:
    """How rows are computed.

    Attributes:
        rows: most of a micro-batch.
        checkpoint: whether activations are computed again for gradients.
        bound_bytes: of the whole run.
    """

    rows: int
    checkpoint: bool
    bound_bytes: int


@dataclass(frozen=True)
class MemoryNeeds:
    """What decides the memory of a run.

    Attributes:
        config: of the model.
        itemsize: bytes of a number that the networks compute with.
        weight_bytes: of the model's arrays.
        num_trained: parameters that are trained.
        trains_encoder: whether gradients go through the encoder or the connector.
        row_sizes: of all rows.
    """

    config: ModelConfig
    itemsize: int
    weight_bytes: int
    num_trained: int
    trains_encoder: bool
    row_sizes: Sequence[RowSize]

    def bound(self, rows: int, checkpoint: bool) -> int:
        """Bytes, with so many rows at a time."""
        costs = sorted((self._row_bytes(size, checkpoint) for size in self.row_sizes), reverse=True)
        shared = max((self._shared_bytes(size, rows, checkpoint) for size in self.row_sizes), default=0)
        fixed = self.weight_bytes + _COPIES * 4 * self.num_trained + _FIXED_BYTES
        return fixed + sum(costs[:rows]) + shared

    def _row_bytes(self, size: RowSize, checkpoint: bool) -> int:
        """What is held of a row between the way forth and the way back."""
        text, vision = self.config.text, self.config.vision
        layers = text.num_hidden_layers
        held = size.num_tokens * _HELD_HIDDEN * text.hidden_size * layers * self.itemsize
        if not checkpoint:
            held += layers * self._decoder_layer(size.num_tokens)
        if self.trains_encoder and size.num_tiles:
            patches = vision.patches_per_side**2
            held += (
                size.num_tiles * patches * _HELD_HIDDEN * vision.hidden_size * vision.num_hidden_layers * self.itemsize
            )
            if not checkpoint:
                held += size.num_tiles * vision.num_hidden_layers * self._encoder_layer()
        return held

    def _shared_bytes(self, size: RowSize, rows: int, checkpoint: bool) -> int:
        """What is held of the layer, or the chunk of logits, that is computed now."""
        text = self.config.text
        layer = rows * self._decoder_layer(size.num_tokens) if checkpoint else 0
        tiles = (
            min(TILES_AT_ONCE, rows * size.num_tiles) if self.trains_encoder else min(2 * TILES_AT_ONCE, size.num_tiles)
        )
        encoder = tiles * self._encoder_layer() * (2 if checkpoint or not self.trains_encoder else 1)
        logits = min(rows * size.num_trained, HEAD_CHUNK) * text.vocab_size * 4 * _OF_LOGITS
        return max(layer, encoder, logits) + logits

    def _decoder_layer(self, num_tokens: int) -> int:
        text = self.config.text
        heads = text.num_attention_heads * text.head_dim + 2 * text.num_key_value_heads * text.head_dim
        numbers = _OF_HIDDEN * text.hidden_size + _OF_HEADS * heads + _OF_INNER * text.intermediate_size
        scores = _OF_SCORES * text.num_attention_heads * num_tokens
        return num_tokens * (numbers + scores) * self.itemsize

    def _encoder_layer(self) -> int:
        """Of a tile."""
        vision = self.config.vision
        patches = vision.patches_per_side**2
        numbers = (_OF_HIDDEN + _OF_HEADS * 3) * vision.hidden_size + _OF_INNER * vision.intermediate_size
        return patches * (numbers + _OF_SCORES * vision.num_attention_heads * patches) * self.itemsize


def plan_memory(needs: MemoryNeeds, batch_size: int, checkpoint: bool, max_bytes: float | None) -> MemoryPlan:
    """The largest micro-batch that fits, without computing anything again if there is one.

    Raises:
        ValueError: not even one row at a time fits.
    """
    if max_bytes is None:
        return MemoryPlan(batch_size, checkpoint, needs.bound(batch_size, checkpoint))
    sizes = [batch_size]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 2))
    for again in (False, True)[checkpoint:]:
        for rows in sizes:
            if (bound := needs.bound(rows, again)) <= max_bytes:
                return MemoryPlan(rows, again, bound)
    least = needs.bound(1, True)
    raise ValueError(
        f"--max-memory is {max_bytes / 1e9:g} GB, but one row at a time can take {least / 1e9:.2f} GB; leave out long "
        "rows (--max-length), choose smaller images (--longest-edge), a quantized base, or a smaller model"
    )
