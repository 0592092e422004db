"""The rows of a batch that are being decoded: a token of each in every step.

Rows of like length share a buffer of keys and values, as all rows of a buffer cost as much as its longest: a long
conversation does not slow the short ones down.
"""

from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import mlx.core as mx
import numpy as np

from ..model.caches.batch_cache import BatchCache, grouped_layers
from ..model.caches.kv_cache import KVCache
from ..model.caches.quantized import Quantization
from ..model.smolvlm import SmolVLM
from ..options import GenerationOptions
from .answer import Answer, AnswerStep
from .decoding import logits_after
from .sampling import Sampler, choose, log_probabilities

LONG_TOKENS = 2048  # of rows that get no empty ones beside them, which take time in each step
_MOST_ROWS = 2**20  # of a group
GROUP_LENGTHS = (512, 2048, 8192, 32768, 10**9)  # most tokens of a row in each group


@dataclass(frozen=True)
class _Row:
    """One answer with what chooses its tokens; `most_tokens` is how long it may become, prompt included."""

    key: Hashable
    answer: Answer
    sampler: Sampler
    most_tokens: int


class _Group:
    """Rows of like length: their keys and values, and the logits after each, (num_rows, vocab_size)."""

    def __init__(self, model: SmolVLM, quantization: Quantization | None):
        self.cache = BatchCache(model.config.text, model.language_model.norm.weight.itemsize, quantization)
        self.rows: dict[int, _Row] = {}  # by their row of the cache
        self.logits = mx.zeros((0, model.config.text.vocab_size))

    def put(self, row: _Row, layers: Sequence[KVCache], logits: mx.array, most_rows: int) -> None:
        """Fill an empty row; `most_rows` is how many there may be."""
        needed = len(self.rows) + 1
        if not needed <= self.cache.num_rows <= max(needed, most_rows):
            ahead = needed if layers[0].offset > LONG_TOKENS else 2 * needed
            self.arrange(min(ahead, max(needed, most_rows)))
        number = next(number for number in range(self.cache.num_rows) if number not in self.rows)
        self.cache.put(number, layers)
        self.logits[number] = logits[0]
        mx.eval(self.logits)
        self.rows[number] = row

    def arrange(self, num_rows: int) -> None:
        """Let the cache have so many rows, those in use first."""
        used = sorted(self.rows)
        self.cache.arrange(used, num_rows)
        empty = mx.zeros((num_rows - len(used), self.logits.shape[1]), self.logits.dtype)
        self.logits = mx.concatenate([self.logits[mx.array(used, mx.int32)], empty])
        mx.eval(self.logits)
        self.rows = {number: self.rows[row] for number, row in enumerate(used)}

    def release_room(self, is_last: bool) -> None:
        """Release rows that are not used, which cost as much as others; all such rows, if no prompt follows."""
        used, num_rows = len(self.rows), self.cache.num_rows
        if is_last and used < num_rows and 2 * used <= num_rows:
            self.arrange(used)
        elif 0 < 4 * used <= num_rows:  # not at once: the next prompt may be here soon
            self.arrange(2 * used)


class RowDecoder:
    """Answers of one model whose prompts are read, what it has read of each, and the logits after it.

    The step after the one whose tokens are read is already enqueued, so all that is held can be used from another
    thread between two calls.
    """

    def __init__(
        self,
        model: SmolVLM,
        batch_size: int,
        max_cache_bytes: int,
        options: GenerationOptions,
        others: Callable[[], tuple[int, int]],
    ):
        """
        Args:
            model: the network.
            batch_size: most rows, those of other models included.
            max_cache_bytes: most memory for keys and values of all of them, were they to become as long as they may.
            options: their `kv_bits`, `kv_group_size` and `quantized_kv_start` are those of all rows.
            others: returns the rows and bytes that the buffers of other models have room for.
        """
        self._model = model
        self._batch_size = batch_size
        self._max_cache_bytes = max_cache_bytes
        self._options = options
        self._others = others
        is_quantized = options.kv_bits is not None
        self._start = options.quantized_kv_start if is_quantized else 0
        # A row that grows beyond the start moves to a group whose keys and values are quantized.
        self._limits = sorted({*GROUP_LENGTHS, self._start} - {0})
        quantization = None if options.kv_bits is None else Quantization(options.kv_bits, options.kv_group_size)
        self._groups = [_Group(model, quantization if most > self._start else None) for most in self._limits]

    def __len__(self) -> int:
        return sum(len(group.rows) for group in self._groups)

    @property
    def held(self) -> tuple[int, int]:
        """Rows for which there are buffers, and their bytes were all to become as long as they may."""
        counts = {number: group.cache.num_rows for number, group in enumerate(self._groups)}
        return sum(counts.values()), self.bytes_with([], counts)

    def bytes_with(self, more: Iterable[int], at_least: dict[int, int] | None = None) -> int:
        """Memory for the rows that are here and some more, each group's as long as its longest may become.

        Args:
            more: how long further rows may become.
            at_least: rows to count for a group, by its number, even if there are fewer.
        """
        lengths: dict[int, list[int]] = {}
        for length in [*more, *(row.most_tokens for group in self._groups for row in list(group.rows.values()))]:
            lengths.setdefault(self._group_of(length), []).append(length)
        counts = at_least or {}
        return sum(
            max(len(group), counts.get(number, 0)) * self._bytes_per_row(number, max(group))
            for number, group in lengths.items()
        )

    def begin(
        self, key: Hashable, answer: Answer, sampler: Sampler, layers: Sequence[KVCache], logits: mx.array
    ) -> None:
        """Begin an answer whose prompt has been read.

        Args:
            key: names the row.
            answer: at its beginning.
            sampler: of the answer.
            layers: what has been read, by layer.
            logits: after the prompt, (1, vocab_size).
        """
        mx.eval(sampler.state)
        self._put(_Row(key, answer, sampler, layers[0].offset + answer.budget), layers, logits)

    def settle(self) -> None:
        """Wait until the step that is enqueued has been computed."""
        mx.eval([group.logits for group in self._groups])

    def step(self) -> list[tuple[Hashable, AnswerStep]]:
        """Choose a token for each row, and have the model read them. Rows that end are to be freed before the next."""
        self._move_grown_rows()
        groups = [group for group in self._groups if group.rows]
        starts = [0, *accumulate(group.cache.num_rows for group in groups)]
        rows = {
            start + number: row
            for group, start in zip(groups, starts, strict=False)
            for number, row in group.rows.items()
        }
        samplers = [rows[number].sampler if number in rows else None for number in range(starts[-1])]
        limited = {number: allowed for number, row in rows.items() if (allowed := row.answer.allowed()) is not None}
        logits = groups[0].logits if len(groups) == 1 else mx.concatenate([group.logits for group in groups])
        chosen = choose(logits, samplers, limited)
        wants_logprobs = any(row.answer.options.logprobs is not None for row in rows.values())
        reported = log_probabilities(logits) if wants_logprobs else None
        mx.async_eval(chosen, [] if reported is None else reported, [row.sampler.state for row in rows.values()])
        goes_on = any(row.answer.left > 1 for row in rows.values())
        if goes_on:
            for group in groups:
                group.cache.begin_step()
            layers = grouped_layers([group.cache for group in groups])
            following = logits_after(self._model, chosen[None], layers)[0]  # built while the device works
        token_ids: list[int] = chosen.tolist()  # type: ignore[assignment]
        taken = list(token_ids)
        for number in limited:
            taken[number] = rows[number].answer.accept(token_ids[number])
            rows[number].sampler.note(mx.array([taken[number]]))
        if goes_on:
            if taken != token_ids:  # what was built would be for nothing; it writes where this writes, too
                following = logits_after(self._model, mx.array([taken]), layers)[0]
            parts = [following] if len(groups) == 1 else mx.split(following, starts[1:-1])
            for group, part in zip(groups, parts, strict=True):
                group.logits = part
            # Not enqueued before the step before it has ended, see `decoding.py`.
            mx.async_eval(parts, [rows[number].sampler.state for number in limited])
        all_logprobs = None if reported is None else np.array(reported)
        steps = []
        for number, row in rows.items():
            logprobs = None if all_logprobs is None else all_logprobs[number]
            steps.append((row.key, row.answer.take(taken[number], logprobs)))
        for group in groups:
            group.cache.end_step([number for number, row in group.rows.items() if row.answer.finish_reason is None])
        return steps

    def free(self, key: Hashable) -> None:
        """Let another answer have a row."""
        group, number = self._place(key)
        del group.rows[number]
        group.cache.lengths[number] = 0

    def held_layers(self, key: Hashable, length: int) -> list[list[mx.array]]:
        """Copies of the keys and values of a row's first tokens, as `PrefixCache.keep` takes them.

        A row that has ended still has those of all its tokens but the last one, until the next step.
        """
        group, number = self._place(key)
        return group.cache.row(number, length)

    def release_room(self, is_last: bool) -> None:
        """Release rows that are not used, which cost as much as others; all such rows, if no prompt follows."""
        for group in self._groups:
            group.release_room(is_last or not group.rows)

    def release_empty(self) -> None:
        """Release all rows that are not used."""
        for group in self._groups:
            if len(group.rows) < group.cache.num_rows:
                group.arrange(len(group.rows))

    def _put(self, row: _Row, layers: Sequence[KVCache], logits: mx.array) -> None:
        number = self._group_of(layers[0].offset + 1)
        other_rows, other_bytes = self._others()
        most_rows = max(0, self._batch_size - other_rows - len(self) + len(self._groups[number].rows))
        if most_rows > 1:
            counts = range(2, min(most_rows, _MOST_ROWS) + 1)

            def num_bytes(count: int) -> int:
                return other_bytes + self.bytes_with([row.most_tokens], {number: count})

            most_rows = 1 + bisect_right(counts, self._max_cache_bytes, key=num_bytes)
        self._groups[number].put(row, layers, logits, most_rows)

    def _move_grown_rows(self) -> None:
        """Rows that have become too long for their group move to the next."""
        for group, most in zip(self._groups, self._limits, strict=True):
            for number, row in list(group.rows.items()):
                if group.cache.lengths[number] >= most:
                    layers = self._model.language_model.make_cache(self._options)
                    for layer, held in zip(
                        layers, group.cache.row(number, int(group.cache.lengths[number])), strict=True
                    ):
                        layer.fill(held)
                    logits = group.logits[number : number + 1]
                    self.free(row.key)
                    self._put(row, layers, logits)

    def _place(self, key: Hashable) -> tuple[_Group, int]:
        return next((group, number) for group in self._groups for number, row in group.rows.items() if row.key == key)

    def _bytes_per_row(self, number: int, length: int) -> int:
        """Memory for a row of a group; what is to be quantized may take more before that."""
        plain = self._groups[0].cache.bytes_per_row(min(length, self._start)) if self._start else 0
        return max(self._groups[number].cache.bytes_per_row(length), plain)

    def _group_of(self, length: int) -> int:
        return next(number for number, most in enumerate(self._limits) if length <= most)
