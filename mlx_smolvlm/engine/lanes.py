"""The rows of several models that are decoded: a lane of rows for each model, within bounds that all of them share."""

from collections.abc import Hashable, Sequence
from functools import partial

import mlx.core as mx

from ..model.caches.kv_cache import KVCache
from ..model.smolvlm import SmolVLM
from ..options import GenerationOptions
from .answer import AnswerStep
from .row import Row
from .row_decoding import RowDecoder


class Lanes:
    """What is decoded, by model: the same base with one set of adapters or another is a model each.

    A lane is made when it is needed, and dropped with its last row. In each step, one lane after another makes a token
    for all of its rows.
    """

    def __init__(self, batch_size: int, max_cache_bytes: int, options: GenerationOptions):
        """
        Args:
            batch_size: most rows of all lanes.
            max_cache_bytes: most memory for keys and values of all lanes, were all rows to become as long as they may.
            options: their `kv_bits`, `kv_group_size` and `quantized_kv_start` are those of all rows.
        """
        self._batch_size = batch_size
        self._max_cache_bytes = max_cache_bytes
        self._options = options
        self._lanes: dict[int, RowDecoder] = {}  # by the id of their model, which they hold

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    @property
    def num_lanes(self) -> int:
        """Lanes in which there are rows."""
        return sum(len(lane) > 0 for lane in self._lanes.values())

    @property
    def num_bytes(self) -> int:
        """Memory for the keys and values of all rows, were they to become as long as they may."""
        return sum(lane.bytes_with([]) for lane in list(self._lanes.values()))  # which another thread may ask for

    def fits(self, rows: Sequence[Row]) -> bool:
        """Whether rows fit in beside those that are decoded. One always does."""
        num_rows = len(rows) + len(self)
        if num_rows <= 1 or num_rows > self._batch_size:
            return num_rows <= 1
        for row in rows:
            self._lane(row.model)
        num_bytes = (
            lane.bytes_with([row.most_tokens for row in rows if id(row.model) == key])
            for key, lane in self._lanes.items()
        )
        return sum(num_bytes) <= self._max_cache_bytes

    def begin(self, row: Row, layers: Sequence[KVCache], logits: mx.array) -> None:
        """Begin to answer a prompt that has been read into `layers`; `logits` after it are (1, vocab_size)."""
        assert row.answer is not None
        lane = self._lane(row.model)
        other_rows, other_bytes = self._others(id(row.model))
        num_rows, num_bytes = other_rows + len(lane) + 1, other_bytes + lane.bytes_with([row.most_tokens])
        if num_rows > self._batch_size or num_bytes > self._max_cache_bytes:
            for other in self._lanes.values():
                if other is not lane:
                    other.release_empty()
        lane.begin(row.key, row.answer, row.answer.sampler(row.prompt_ids), layers, logits)

    def settle(self) -> None:
        """Wait until the steps that are enqueued have been computed."""
        for lane in self._lanes.values():
            lane.settle()

    def step(self) -> list[tuple[Hashable, AnswerStep]]:
        """A token for each row. Rows that end are to be freed before the next step."""
        return [step for lane in self._lanes.values() if len(lane) for step in lane.step()]

    def free(self, row: Row) -> None:
        """Let another answer have the place of a row."""
        self._lane(row.model).free(row.key)
        self._lanes = {key: lane for key, lane in self._lanes.items() if len(lane)}

    def held_layers(self, row: Row, length: int) -> list[list[mx.array]]:
        """As `RowDecoder.held_layers`."""
        return self._lane(row.model).held_layers(row.key, length)

    def release_room(self, is_last: bool) -> None:
        """As `RowDecoder.release_room`."""
        for lane in self._lanes.values():
            lane.release_room(is_last)

    def _lane(self, model: SmolVLM) -> RowDecoder:
        if id(model) not in self._lanes:
            bounds = self._batch_size, self._max_cache_bytes
            self._lanes[id(model)] = RowDecoder(model, *bounds, self._options, partial(self._others, id(model)))
        return self._lanes[id(model)]

    def _others(self, own: int) -> tuple[int, int]:
        """Rows and bytes that the buffers of all lanes but one have room for."""
        held = [lane.held for key, lane in self._lanes.items() if key != own]
        return sum(num_rows for num_rows, _ in held), sum(num_bytes for _, num_bytes in held)
