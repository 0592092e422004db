"""Examples -> the losses of their trained tokens, with gradients.

Rows stand one behind the other without padding: to the decoder they are one sequence, positions begin anew with each
row, and attention takes row by row. What comes after the last attention, the head included, reads the trained positions
alone; the head in chunks. What is quickly computed again for gradients is not kept: scores of attention, logits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import mlx.core as mx
import numpy as np

from ...model.caches.kv_cache import KVCache
from ...model.language import DecoderLayer, Step
from .head_losses import chunks, cross_entropies, losses_of_frozen_head, tokens_at_once
from .lean_operations import causal_mask, lean_attention, lean_swiglu
from .low_rank import Noise
from .recomputing import recomputed
from .trainable import Trainable

TILES_AT_ONCE = 4


@dataclass(frozen=True)
class MicroBatch:
    """Rows that are computed together.

    Attributes:
        names: of the rows, by which dropout is chosen.
        input_ids: (num_tokens,) int32, of all rows.
        lengths: tokens of each row.
        predicted: (num_trained,) int32, the places in `input_ids` of tokens that count in the loss.
        tiles: (num_tiles, tile_size, tile_size, 3) uint8 of all rows, where the encoder or the connector is trained.
        tile_counts: of each row.
        features: (num_image_tokens, hidden_size) of all rows, where they are known.
        references: (num_rows,) float32, for rows that are compared by two: see `preferences.py`.
    """

    names: Sequence[str]
    input_ids: np.ndarray
    lengths: Sequence[int]
    predicted: np.ndarray
    tiles: np.ndarray | None = None
    tile_counts: Sequence[int] = ()
    features: mx.array | None = None
    references: mx.array | None = None

    @property
    def reference(self) -> mx.array | None:
        """By how much the reference finds the chosen answers likelier than the rejected ones, (num_pairs,) float32."""
        return None if self.references is None else self.references[::2] - self.references[1::2]

    @property
    def num_losses(self) -> int:
        """Over how many losses the mean is: trained tokens, or pairs."""
        return len(self.predicted) if self.references is None else len(self.lengths) // 2


class RowsSideBySide(KVCache):
    """What one layer of the decoder sees of rows that stand one behind the other: each its own tokens."""

    def __init__(self, lengths: Sequence[int]):
        super().__init__()
        self._lengths = lengths
        self._ends = np.cumsum(lengths).tolist()
        self._mask = cache(causal_mask)  # the same in all layers

    def positions(self, num_tokens: int) -> np.ndarray:
        """Within the rows, (num_tokens,) int32."""
        return np.concatenate([np.arange(length, dtype=np.int32) for length in self._lengths])

    def attend(self, queries: mx.array, keys_values: mx.array, scale: float) -> mx.array:
        """As `KVCache.attend`, row by row; nothing is kept."""
        keys, values = mx.split(keys_values, 2, 1)
        rows = zip(*(mx.split(x, self._ends[:-1], axis=2) for x in (queries, keys, values)), strict=True)
        outs = [lean_attention(q, k, v, scale, self._mask) for q, k, v in rows]
        return mx.concatenate(outs, axis=2)


Block = Callable[[mx.array], mx.array]
Wrap = Callable[[str, Block], Block]


def token_losses(trainable: Trainable, batch: MicroBatch, checkpoint: bool = False) -> mx.array:
    """Cross entropies of the trained tokens, (num_trained,) float32.

    Args:
        trainable: the model.
        batch: the rows.
        checkpoint: compute what is within a layer again for its gradient, rather than keep it.
    """
    model = trainable.model
    wrap = _checkpointed(trainable) if checkpoint else _as_it_is
    features = batch.features
    if features is None and batch.tiles is not None:
        features = _encode(trainable, batch, wrap)
    x = model.input_embeddings(batch.input_ids, features)
    layer_cache = RowsSideBySide(batch.lengths)
    decoder = model.language_model
    step = decoder.step(x, [layer_cache])
    step = step._replace(swiglu=lean_swiglu)
    stretches = list(zip(batch.names, batch.lengths, strict=True))
    places = mx.array(batch.predicted - 1)
    for number, layer in enumerate(decoder.layers):
        is_last = number == len(decoder.layers) - 1
        whole: Callable[..., mx.array] = partial(_last_layer, layer, trainable.noise, places) if is_last else layer
        block = _of_rows(trainable.noise, stretches, partial(whole, cache=layer_cache, step=step))
        x = wrap(f"language_model.layers.{number}", block)(x)
    hidden = step.normalize(decoder["norm"], x)[0]
    return _cross_entropies(trainable, hidden, batch, stretches)


def _last_layer(
    layer: DecoderLayer, noise: Noise, places: mx.array, x: mx.array, cache: KVCache, step: Step
) -> mx.array:
    """The last layer at some places, (1, num_tokens, hidden_size) -> (1, num_places, hidden_size).

    No token looks at others after its attention, so what follows is only computed where it counts.
    """
    x = layer["self_attn"](step.normalize(layer["input_layernorm"], x), x, cache, step)[:, places]
    noise.places = places
    out: mx.array = layer["mlp"](step.normalize(layer["post_attention_layernorm"], x), x, step)
    return out


def _of_rows(noise: Noise, stretches: Sequence[tuple[str, int]], block: Block) -> Block:
    """A layer whose dropout is that of these rows, also when it is computed again."""

    def run(x: mx.array) -> mx.array:
        noise.tokens, noise.places = stretches, None
        return block(x)

    return run


def _encode(trainable: Trainable, batch: MicroBatch, wrap: Wrap) -> mx.array:
    """Image features of all tiles, some tiles at a time."""
    model, noise = trainable.model, trainable.noise
    assert batch.tiles is not None
    counted = zip(batch.names, batch.tile_counts, strict=True)
    names = [f"{name} {number}" for name, count in counted for number in range(count)]
    features = []
    for start in range(0, len(names), TILES_AT_ONCE):
        own = names[start : start + TILES_AT_ONCE]

        x = model.vision_model.embed(mx.array(batch.tiles[start : start + TILES_AT_ONCE]))
        for number, layer in enumerate(model.vision_model.encoder.layers):
            x = wrap(f"vision_model.encoder.layers.{number}", _of_tiles(noise, own, layer))(x)
        features.append(_of_tiles(noise, own, model.connector)(model.vision_model.post_layernorm(x)))
    return mx.concatenate(features).reshape(-1, features[0].shape[-1])


def _of_tiles(noise: Noise, names: Sequence[str], block: Block) -> Block:
    """A block whose dropout is that of these tiles, also when it is computed again."""

    def run(x: mx.array) -> mx.array:
        noise.tiles = names
        return block(x)

    return run


def _cross_entropies(
    trainable: Trainable, hidden: mx.array, batch: MicroBatch, stretches: Sequence[tuple[str, int]]
) -> mx.array:
    """Of hidden states at the places before the trained tokens, (num_trained, hidden_size) -> (num_trained,)."""
    decoder = trainable.model.language_model
    path = "language_model.lm_head" if "lm_head" in decoder else "language_model.embed_tokens"
    trained = trainable.within(path)
    size = tokens_at_once(trainable.model.config.text.vocab_size, f"{path}.weight" in trained)
    if not trained:
        return losses_of_frozen_head(decoder.logits, hidden, mx.array(batch.input_ids[batch.predicted]), size)

    def losses(hidden: mx.array, predicted: np.ndarray) -> mx.array:
        trainable.noise.tokens, trainable.noise.places = stretches, mx.array(predicted - 1)
        logits = decoder.logits(hidden[None])[0].astype(mx.float32)
        return cross_entropies(logits, mx.array(batch.input_ids[predicted]))

    wrap = _checkpointed(trainable) if len(batch.predicted) > size else _as_it_is
    each = [
        wrap(path, partial(losses, predicted=batch.predicted[chunk]))(hidden[chunk])
        for chunk in chunks(len(batch.predicted), size)
    ]
    return mx.concatenate(each)


def _as_it_is(_: str, block: Block) -> Block:
    return block


def _checkpointed(trainable: Trainable) -> Wrap:
    """What keeps of a block its input alone; parameters are inputs, too, so that they get their gradients."""

    def wrap(path: str, block: Block) -> Block:
        arrays = trainable.within(path)

        def run(x: mx.array, *values: mx.array) -> mx.array:
            trainable.place_back(dict(zip(arrays, values, strict=True)))
            return block(x)

        return lambda x: recomputed(run)(x, *arrays.values())

    return wrap
