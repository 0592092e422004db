"""Reads a prompt into the cache while its pictures and frames are still being made."""

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice

import mlx.core as mx
import numpy as np

from ..media.prefetch import prefetched
from ..model.caches.kv_cache import KVCache
from ..model.smolvlm import SmolVLM
from ..processor.prompt import Inputs, Prompt
from .feature_cache import FeatureCache
from .prompt_cache import PromptCache
from .timing import Stopwatch

ENCODER_BYTES = 320 * 1024**2  # about what the encoder may take beside its weights
MAX_TILES_PER_STEP = 8  # more make no product quicker, and a cancel waits for them
TILES_AHEAD = 8  # tiles that may wait for the encoder


def tiles_per_step(model: SmolVLM) -> int:
    """Tiles to encode at a time, so that their hidden states and attention scores fit into `ENCODER_BYTES`."""
    vision = model.config.vision
    patches = vision.patches_per_side**2
    states = 3 * vision.intermediate_size + 4 * vision.hidden_size  # of the MLP's; x, queries, keys and values
    scores = 2 * vision.num_attention_heads * patches  # before and after softmax, where no kernel does without them
    itemsize = model.vision_model.post_layernorm.weight.itemsize
    return max(1, min(ENCODER_BYTES // (patches * (states + scores) * itemsize), MAX_TILES_PER_STEP))


def read_prompt(
    model: SmolVLM,
    prompt: Prompt,
    cache: PromptCache,
    feature_cache: FeatureCache,
    prefill_chunk: int,
    stopwatch: Stopwatch,
    check_cancelled: Callable[[], None],
) -> mx.array:
    """Read what the cache does not hold yet.

    A thread resizes pictures and decodes videos ahead; their tiles are encoded some at a time, and the tokens up to
    the last tile there is are read at once. If a video breaks off, its prompt changes and is read again from there on.

    Returns:
        Logits after the last token, (1, vocab_size).
    """
    cache.begin(prompt)
    reader = _Reader(model, prompt, cache, prefill_chunk, stopwatch, check_cancelled)
    first_medium = sum(end <= reader.done for _, end in prompt.spans)
    if first_medium < len(prompt.media):
        with closing(prefetched(prompt.tiles(first_medium), TILES_AHEAD)) as tiles:
            while step := reader.take(tiles):
                with stopwatch.stage("vision"):
                    reader.features += feature_cache.encode(model, step)
                reader.read_ready()
        if prompt.settle():
            reader.restart()
            if reader.lacks_features:  # of media that the cache held and has forgotten
                return read_prompt(model, prompt, cache, feature_cache, prefill_chunk, stopwatch, check_cancelled)
    reader.read_to(len(prompt.input_ids))
    cache.note_media(prompt)
    return model.language_model.logits(reader.hidden[:, -1])


def read_inputs(
    model: SmolVLM,
    inputs: Inputs,
    features: list[mx.array],
    layers: list[KVCache],
    prefill_chunk: int,
    check_cancelled: Callable[[], None],
) -> mx.array:
    """Read a whole prompt, the features of whose tiles are there, into an empty cache.

    Returns:
        Logits after the last token, (1, vocab_size).
    """
    embeddings = model.input_embeddings(inputs.input_ids, mx.concatenate(features) if features else None)
    for start in range(0, len(inputs.input_ids), prefill_chunk):
        check_cancelled()
        hidden = model.language_model(embeddings[:, start : start + prefill_chunk], layers)
        mx.eval([layer.state for layer in layers])
    return model.language_model.logits(hidden[:, -1])


class _Reader:
    """Feeds a prompt to the decoder, as far as the features of its tiles are known."""

    def __init__(
        self,
        model: SmolVLM,
        prompt: Prompt,
        cache: PromptCache,
        chunk: int,
        stopwatch: Stopwatch,
        check_cancelled: Callable[[], None],
    ):
        self._model = model
        self._prompt = prompt
        self._cache = cache
        self._chunk = chunk
        self._stopwatch = stopwatch
        self._check_cancelled = check_cancelled
        self._most_tiles = tiles_per_step(model)
        self._next_tiles = 1  # then twice as many: encoding begins with the first tile there is
        self._positions = prompt.image_positions
        self._first_feature = int(np.searchsorted(self._positions, self.done))  # those before are in the cache
        self.features: list[mx.array] = []  # (image_seq_len, hidden_size) for each tile after those
        self.hidden = mx.zeros((1, 1, 1))

    @property
    def done(self) -> int:
        """Tokens read."""
        return len(self._cache.token_ids)

    @property
    def lacks_features(self) -> bool:
        """Whether there are image tokens to read before the first whose features were made."""
        return bool(np.searchsorted(self._positions, self.done) < self._first_feature)

    def take(self, tiles: Iterator[np.ndarray]) -> list[np.ndarray]:
        """The next few tiles, none at the end."""
        self._check_cancelled()
        count = min(self._next_tiles, self._most_tiles)
        self._next_tiles = 2 * count
        with self._stopwatch.stage("processing"):
            return list(islice(tiles, count))

    def read_ready(self) -> None:
        """Read up to the last image token whose features are known."""
        known = self._first_feature + len(self.features) * self._prompt.image_seq_len
        self.read_to(int(self._positions[known - 1]) + 1)

    def read_to(self, end: int) -> None:
        """Read the tokens before a position."""
        with self._stopwatch.stage("prefill"):
            while self.done < end:
                self._check_cancelled()
                ids = self._prompt.input_ids[self.done : min(self.done + self._chunk, end)]
                embeddings = self._model.input_embeddings(ids, self._features_of(len(ids)))
                self.hidden = self._model.language_model(embeddings, self._cache.layers)
                mx.eval([layer.state for layer in self._cache.layers])
                self._cache.extend(ids)

    def restart(self) -> None:
        """Go back to where the prompt has changed."""
        self._cache.begin(self._prompt)
        self._positions = self._prompt.image_positions

    def _features_of(self, length: int) -> mx.array | None:
        """The features of the image tokens among the next ones, (num_image_tokens, hidden_size)."""
        first, last = np.searchsorted(self._positions, (self.done, self.done + length)) - self._first_feature
        if first == last:
            return None
        per_tile = self._prompt.image_seq_len
        tile = first // per_tile
        rows = mx.concatenate(self.features[tile : -(-last // per_tile)])
        return rows[first - tile * per_tile : last - tile * per_tile]
