"""Reads the prompts of several rows in units: a few tiles, or a chunk of tokens, of the row that has the least left."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from .feature_cache import SharedFeatureCache
from .pacing import Pace
from .prefill import PromptReader, tiles_per_step
from .prefixes import PrefixCache
from .row import Row, Stage

WAITING_WEIGHT = 0.1  # of a second that a row has waited, beside one that reading it takes
MAX_READING = 8  # prompts that are read in turn: each may have a thread that makes its tiles


class RowReading:
    """The rows whose prompts are being read.

    Attributes:
        encode_s: seconds spent on encoding tiles so far.
    """

    def __init__(
        self,
        feature_cache: SharedFeatureCache,
        prefix_cache: PrefixCache,
        pace: Pace,
        on_tile: Callable[[], None],
        on_error: Callable[[Row, Exception], None],
    ):
        """
        Args:
            feature_cache, prefix_cache: of all rows.
            pace: measures how long units take.
            on_tile: called, in a thread, when there is something to do.
            on_error: called with a row whose media cannot be read, or that is cancelled; it drops the row.
        """
        self._feature_cache = feature_cache
        self._prefix_cache = prefix_cache
        self._pace = pace
        self._on_tile = on_tile
        self._on_error = on_error
        self.encode_s = 0.0

    def begin(self, row: Row) -> None:
        """Begin to read a prepared row, but for what its prompt shares with another."""
        assert row.prompt is not None
        row.stage, row.started_s = Stage.READING, time.perf_counter()
        row.cache.open(row.model, row.options)
        row.cached_tokens = self._prefix_cache.fill(row.cache, row.prompt)
        row.reader = PromptReader(row.model, row.prompt, row.cache, self._on_tile)
        row.reader.num_ready()  # its thread starts
        if row.on_begin is not None:
            row.on_begin()
        row.tell_progress()

    def unit(self, rows: Sequence[Row], seconds: float) -> bool:
        """Do one unit of work, within a time as far as can be foreseen; False if nothing is ready.

        Args:
            rows: those that are being read, the most urgent one first.
            seconds: infinity takes the largest unit.
        """
        for number, row in enumerate(rows):
            reader = row.reader
            assert reader is not None
            most = self._pace.tiles_within(seconds, tiles_per_step(row.model))
            enough = min(most, max(reader.tiles_left, 1))
            if reader.has_tiles and (reader.num_ready() >= enough or reader.is_last_ready):  # an error may be the last
                self._encode(rows[number:], most)
                return True
            if reader.num_readable >= min(row.options.prefill_chunk, reader.tokens_left):
                self._read(row, reader, seconds)
                return True
        for row in rows:  # which wait for tiles
            if row.reader is not None and row.reader.num_readable:
                self._read(row, row.reader, seconds)
                return True
        return False

    def _read(self, row: Row, reader: PromptReader, seconds: float) -> None:
        count = min(self._pace.tokens_within(seconds, row.options.prefill_chunk), reader.num_readable)
        with self._pace.tokens(count):
            reader.read(count)
        row.tell_progress()

    def _encode(self, rows: Sequence[Row], most: int) -> None:
        """Encode tiles of the first row, and with them those that others have ready, since many cost little more.

        Rows with other adapters are among these others if their adapters leave the encoder as it is.
        """
        tiles: list[np.ndarray] = []
        readers: list[PromptReader] = []
        model = rows[0].model
        encoder = self._feature_cache.encoder_of(model)
        for row in rows:
            reader = row.reader
            assert reader is not None
            if len(tiles) == most or not reader.num_ready() or self._feature_cache.encoder_of(row.model) != encoder:
                continue
            try:
                own = reader.take(min(most - len(tiles), reader.num_ready()))
            except Exception as error:  # whatever it is, others can still be answered
                self._on_error(row, error)
                continue
            tiles += own
            readers += [reader] * len(own)
        if not tiles:
            return
        start, num_encoded = time.perf_counter(), self._feature_cache.num_encoded
        features = self._feature_cache.encode(model, tiles)
        seconds = time.perf_counter() - start
        self.encode_s += seconds
        self._pace.note_tiles(self._feature_cache.num_encoded - num_encoded, seconds)
        for reader, feature in zip(readers, features, strict=True):
            reader.add([feature])

    def urgency(self, row: Row) -> float:
        """Seconds of reading that are left, less a tenth of those for which the row has waited: the least comes first.

        A short question comes before a picture that is nearly read, unless many of them have come before it already.
        """
        if row.reader is not None:
            tokens, tiles = row.reader.tokens_left, row.reader.tiles_left
        else:
            assert row.prompt is not None
            tokens, tiles = len(row.prompt_ids), sum(medium.num_tiles for medium in row.prompt.media)
        waited_s = time.perf_counter() - row.added_s
        return tokens * self._pace.token_s + tiles * self._pace.tile_s - WAITING_WEIGHT * waited_s
