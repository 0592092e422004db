"""How much memory a run can take at most, from the sizes of rows and layers, and what fits into a given bound.

Counted is what MLX holds: weights, what is trained with its gradients and moments, and the activations of the largest
micro-batch. These are counted by layer, generously: each operation of a layer with its gradient's copy.
"""

from dataclasses import dataclass

from ...model.config import ModelConfig
from .forward import TILES_AT_ONCE
from .frozen_encoder import tiles_at_once
from .head_losses import tokens_at_once
from .lean_operations import SHORT_ROW

MICRO_BATCH_TOKENS = 1024
"""Rows are computed together up to so many tokens: enough for a device to be busy."""

_FIXED_BYTES = 64 * 1024**2  # buffers of no certain size
_COPIES = 7  # float32 arrays as large as what is trained: itself, two moments, gradients summed and new, updates
_OF_HIDDEN, _OF_HEADS, _OF_INNER, _OF_LOGITS = 14, 8, 9, 6
_HELD_SCORES, _SCORES_AT_WORK = 2, 5  # attention: kept for the way back, and on the way
_HELD_HIDDEN = 2
_COMPUTED_AHEAD = 3  # layers that MLX computes again before their turn comes


@dataclass(frozen=True)
class MemoryPlan:
    """How rows are computed.

    It depends on the rows and the bound alone, so a step's micro-batches are the same however its rows are divided into
    batches, and so are its gradients, to the bit.

    Attributes:
        max_tokens: most tokens of a micro-batch; a longer row is alone.
        checkpoint: whether activations are computed again for gradients.
        bound_bytes: of the whole run.
    """

    max_tokens: int
    checkpoint: bool
    bound_bytes: int = 0


@dataclass(frozen=True)
class MemoryNeeds:
    """What decides the memory of a run.

    Attributes:
        config: of the model.
        image_seq_len: tokens of a tile.
        itemsize: bytes of a number that the networks compute with.
        weight_bytes: of the model's arrays that are in memory while it trains.
        encoding_bytes: of those in memory while images are encoded with a frozen encoder; 0 if there are none.
        num_trained: parameters that are trained.
        trains_encoder: whether gradients go through the encoder or the connector.
        longest_row: most tokens of a row.
        most_trained: most tokens of a row that count in the loss.
        most_tiles: most tiles of a row.
        most_tokens: most tokens of a step.
    """

    config: ModelConfig
    image_seq_len: int
    itemsize: int
    weight_bytes: int
    encoding_bytes: int
    num_trained: int
    trains_encoder: bool
    longest_row: int
    most_trained: int
    most_tiles: int
    most_tokens: int

    def bound(self, max_tokens: int, checkpoint: bool) -> int:
        """Bytes, with micro-batches of so many tokens."""
        fixed = _COPIES * 4 * self.num_trained + _FIXED_BYTES
        num_tokens = max(max_tokens, self.longest_row)
        text, vision = self.config.text, self.config.vision
        layer = self._decoder_layer(num_tokens, _SCORES_AT_WORK * self.longest_row)
        scores = _HELD_SCORES * min(self.longest_row, SHORT_ROW)  # longer rows keep none
        held = num_tokens * _HELD_HIDDEN * text.hidden_size * text.num_hidden_layers * self.itemsize
        held += 0 if checkpoint else text.num_hidden_layers * self._decoder_layer(num_tokens, scores)
        tiles = max(self.most_tiles, num_tokens // self.image_seq_len) if self.most_tiles else 0
        if self.trains_encoder:
            layers, patches = vision.num_hidden_layers, vision.patches_per_side**2
            held += tiles * patches * _HELD_HIDDEN * vision.hidden_size * layers * self.itemsize
            held += 0 if checkpoint else tiles * layers * self._encoder_layer(_HELD_SCORES)
        most_trained = self.most_trained if num_tokens == self.longest_row else num_tokens
        head = tokens_at_once(text.vocab_size, self.num_trained >= text.vocab_size * text.hidden_size)
        logits = min(most_trained, head) * text.vocab_size * 4 * _OF_LOGITS
        at_once = min(TILES_AT_ONCE, tiles) if self.trains_encoder else tiles_at_once(vision)
        encoder = at_once * self._encoder_layer(_SCORES_AT_WORK)
        if self.trains_encoder:
            layer = max(layer, encoder)
        step = self.weight_bytes + held + logits + layer * (_COMPUTED_AHEAD if checkpoint else 1)
        return fixed + max(step, self.encoding_bytes + encoder if self.encoding_bytes else 0)

    def _decoder_layer(self, num_tokens: int, scores: int) -> int:
        """With so many scores of each token and head."""
        text = self.config.text
        heads = text.num_attention_heads * text.head_dim + 2 * text.num_key_value_heads * text.head_dim
        numbers = _OF_HIDDEN * text.hidden_size + _OF_HEADS * heads + _OF_INNER * text.intermediate_size
        return num_tokens * (numbers + scores * text.num_attention_heads) * self.itemsize

    def _encoder_layer(self, of_scores: int) -> int:
        """Of a tile."""
        vision = self.config.vision
        patches = vision.patches_per_side**2
        numbers = (_OF_HIDDEN + _OF_HEADS * 3) * vision.hidden_size + _OF_INNER * vision.intermediate_size
        scores = of_scores * vision.num_attention_heads * patches
        return patches * (numbers + scores) * self.itemsize // (1 if self.trains_encoder else 2)  # no way back


def plan_memory(needs: MemoryNeeds, checkpoint: bool, max_bytes: float | None) -> MemoryPlan:
    """The largest micro-batch that fits, without computing anything again if there is one.

    Raises:
        ValueError: not even one row at a time fits.
    """
    sizes = [max(min(MICRO_BATCH_TOKENS, needs.most_tokens), needs.longest_row), needs.longest_row]
    if max_bytes is None:
        return MemoryPlan(sizes[0], checkpoint, needs.bound(sizes[0], checkpoint))
    for again in (False, True)[checkpoint:]:
        for max_tokens in sizes:
            if (bound := needs.bound(max_tokens, again)) <= max_bytes:
                return MemoryPlan(max_tokens, again, bound)
    least = needs.bound(needs.longest_row, True)
    raise ValueError(
        f"--max-memory is {max_bytes / 1e9:g} GB, but one row at a time can take {least / 1e9:.2f} GB; leave out long "
        "rows (--max-length), choose smaller images (--max-edge), a quantized base, or a smaller model"
    )
