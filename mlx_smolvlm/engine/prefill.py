"""Reads a prompt into its cache, in units that the caller paces, while its images and frames are still being made."""

import time
from collections.abc import Callable
from contextlib import closing

import mlx.core as mx
import numpy as np

from ..media.prefetch import AtHand, Prefetched
from ..media.reporting import report
from ..model.smolvlm import SmolVLM
from ..processor.prompt import Prompt
from ..processor.prompt_media import PlannedImage
from .feature_cache import FeatureCache
from .prompt_cache import PromptCache
from .timing import Stopwatch

ENCODER_BYTES = 320 * 1024**2  # about what the encoder may take beside its weights
MAX_TILES_PER_STEP = 8  # more make no product quicker, and a cancel waits for them
QUICK_S = 0.5  # tiles that take longer are encoded fewer at a time
TILES_AHEAD = 8  # tiles that may wait for the encoder


def tiles_per_step(model: SmolVLM) -> int:
    """Tiles to encode at a time, so that their hidden states and attention scores fit into `ENCODER_BYTES`."""
    vision = model.config.vision
    patches = vision.patches_per_side**2
    states = 3 * vision.intermediate_size + 4 * vision.hidden_size  # of the MLP's; x, queries, keys and values
    scores = 2 * vision.num_attention_heads * patches  # before and after softmax, where no kernel does without them
    itemsize = model.vision_model.post_layernorm.weight.itemsize
    return max(1, min(ENCODER_BYTES // (patches * (states + scores) * itemsize), MAX_TILES_PER_STEP))


class PromptReader:
    """One prompt that is being read into its cache.

    A thread resizes images and decodes videos ahead. The caller takes tiles, encodes them and hands the features back;
    tokens can be read up to the last image token whose features are known. If a video breaks off, its prompt changes
    and is read again from there on. Close it when done: that ends the thread.
    """

    def __init__(self, model: SmolVLM, prompt: Prompt, cache: PromptCache, on_tile: Callable[[], None] | None = None):
        """
        Args:
            model: the network.
            prompt: open until all its tiles are taken.
            cache: what it shares with the prompt is not read again; the rest is forgotten.
            on_tile: called, in the thread, when there is something to take.
        """
        self._model = model
        self._prompt = prompt
        self._cache = cache
        self._on_tile = on_tile
        self._hidden = mx.zeros((1, 1, 1))
        self._tiles: AtHand[np.ndarray] | Prefetched[np.ndarray] | None = None
        cache.begin(prompt)
        self._start()

    def _start(self) -> None:
        prompt = self._prompt
        self.close()
        self._positions = prompt.image_positions
        self._first_feature = int(np.searchsorted(self._positions, self.done))  # those before are in the cache
        self._features: list[mx.array] = []  # (image_seq_len, hidden_size) for each tile after those
        self._first_medium = sum(end <= self.done for _, end in prompt.spans)
        self._num_taken = 0
        self.has_tiles = self._first_medium < len(prompt.media)

    def close(self) -> None:
        """End the thread that makes tiles."""
        if self._tiles is not None:
            self._tiles.close()
            self._tiles = None

    @property
    def done(self) -> int:
        """Tokens read."""
        return len(self._cache.token_ids)

    @property
    def tokens_left(self) -> int:
        """Tokens to read."""
        return len(self._prompt.input_ids) - self.done

    @property
    def tiles_left(self) -> int:
        """Tiles to take, as far as is known."""
        return sum(medium.num_tiles for medium in self._prompt.media[self._first_medium :]) - self._num_taken

    def tell(self) -> None:
        """Report which medium the next tile is of, or that only text is left."""
        taken, media = self._num_taken, self._prompt.media
        for number, medium in enumerate(media[self._first_medium :], self._first_medium + 1):
            if taken < medium.num_tiles:
                report("reading image" if isinstance(medium, PlannedImage) else "reading video", number, len(media))
                return
            taken -= medium.num_tiles
        report("reading the prompt")

    def num_ready(self) -> int:
        """Tiles that can be taken without waiting; the end of all tiles counts as one."""
        return self._made().num_ready if self.has_tiles else 0

    @property
    def is_last_ready(self) -> bool:
        """Whether all that can be taken is ready, as tiles have ended or failed."""
        return self.has_tiles and self._made().is_last_ready

    def take(self, count: int) -> list[np.ndarray]:
        """The next tiles, (tile_size, tile_size, 3) uint8 each, waited for; fewer at the end, and then none.

        Raises:
            ValueError: an image or video that cannot be read to its end.
        """
        tiles: list[np.ndarray] = []
        while self.has_tiles and len(tiles) < count:
            tile = next(self._made(), None)
            if tile is not None:
                tiles.append(tile)
            elif tiles:
                break  # the end is settled once the features of these are known
            else:
                self.has_tiles = False
                self._settle()
        self._num_taken += len(tiles)
        return tiles

    def add(self, features: list[mx.array]) -> None:
        """Hand in the features of tiles in the order in which they were taken, (image_seq_len, hidden_size) each."""
        self._features += features

    @property
    def num_readable(self) -> int:
        """Tokens that can be read now: to the last image token whose features are known, or all of them."""
        if not self.has_tiles:
            return self.tokens_left
        known = self._first_feature + len(self._features) * self._prompt.image_seq_len
        return int(self._positions[known - 1]) + 1 - self.done if known > self._first_feature else 0

    def read(self, max_tokens: int) -> None:
        """Read the next tokens, at most `max_tokens` of those that can be read now."""
        count = min(max_tokens, self.num_readable)
        ids = self._prompt.input_ids[self.done : self.done + count]
        embeddings = self._model.input_embeddings(ids, self._features_of(len(ids)))
        self._hidden = self._model.language_model(embeddings, self._cache.layers)
        mx.eval([layer.state for layer in self._cache.layers])
        self._cache.extend(ids)
        if not self.has_tiles and not self.tokens_left:
            self._cache.note_media(self._prompt)

    def logits(self) -> mx.array:
        """After the last token of a prompt that has been read, (1, vocab_size)."""
        return self._model.language_model.logits(self._hidden[:, -1])

    def _made(self) -> AtHand[np.ndarray] | Prefetched[np.ndarray]:
        if self._tiles is None:
            tiles = self._prompt.tiles(self._first_medium)
            is_cut = self._prompt.is_cut
            self._tiles = AtHand(tiles) if is_cut else Prefetched(tiles, TILES_AHEAD, self._on_tile)
        return self._tiles

    def _settle(self) -> None:
        """After the last tile: go back to where the prompt has changed, if a video broke off."""
        self.close()
        if not self._prompt.settle():
            return
        self._cache.begin(self._prompt)
        self._positions = self._prompt.image_positions
        if np.searchsorted(self._positions, self.done) < self._first_feature:  # of media that the cache has forgotten
            self._start()

    def _features_of(self, length: int) -> mx.array | None:
        """The features of the image tokens among the next ones, (num_image_tokens, hidden_size)."""
        first, last = np.searchsorted(self._positions, (self.done, self.done + length)) - self._first_feature
        if first == last:
            return None
        per_tile = self._prompt.image_seq_len
        tile = first // per_tile
        rows = mx.concatenate(self._features[tile : -(-last // per_tile)])
        return rows[first - tile * per_tile : last - tile * per_tile]


def read_prompt(
    model: SmolVLM,
    prompt: Prompt,
    cache: PromptCache,
    feature_cache: FeatureCache,
    prefill_chunk: int,
    stopwatch: Stopwatch,
    check_cancelled: Callable[[], None],
) -> mx.array:
    """Read what the cache does not hold yet, all at once.

    Encoding begins with the first tile there is, and goes on with twice as many at a time while that is quick.

    Returns:
        Logits after the last token, (1, vocab_size).
    """
    count, most = 1, tiles_per_step(model)
    with closing(PromptReader(model, prompt, cache)) as reader:
        while reader.has_tiles or reader.tokens_left:
            check_cancelled()
            reader.tell()
            with stopwatch.stage("processing"):
                tiles = reader.take(count)
            if tiles:
                start = time.perf_counter()
                with stopwatch.stage("vision"):
                    reader.add(feature_cache.encode(model, tiles, check_cancelled))
                # A cancel waits for the tiles in flight.
                is_quick = time.perf_counter() - start < QUICK_S
                count = min(2 * count, most) if is_quick else max(count // 2, 1)
            with stopwatch.stage("prefill"):
                while reader.num_readable:
                    check_cancelled()
                    reader.read(prefill_chunk)
        return reader.logits()
