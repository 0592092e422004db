"""Reads a prompt into the cache while its pictures and frames are still being made."""

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice

import mlx.core as mx
import numpy as np

from .feature_cache import FeatureCache
from .model import SmolVLM
from .prefetch import prefetched
from .prompt import Prompt
from .prompt_cache import PromptCache
from .timing import Stopwatch

TILES_PER_STEP = 4  # tiles encoded at a time: bounds the encoder's memory, and how long a cancel waits
TILES_AHEAD = 8  # tiles that may wait for the encoder


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
        with self._stopwatch.stage("processing"):
            return list(islice(tiles, TILES_PER_STEP))

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
