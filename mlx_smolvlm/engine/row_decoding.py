"""The rows of a batch that are being decoded: a token of each in every step."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from ..model.caches.batch import BatchCache
from ..model.caches.kv_cache import KVCache
from ..model.smolvlm import SmolVLM
from .answer import Answer, AnswerStep
from .decoding import logits_after
from .sampling import Sampler, choose, log_probabilities


@dataclass(frozen=True)
class _Row:
    """One answer with what chooses its tokens; `most_tokens` is how long it may become, prompt included."""

    key: Hashable
    answer: Answer
    sampler: Sampler
    most_tokens: int


class RowDecoder:
    """Answers whose prompts are read, what the model has read of each, and the logits after it.

    The step after the one whose tokens are read is already enqueued, so all that is held can be used from another
    thread between two calls.
    """

    def __init__(self, model: SmolVLM, batch_size: int, max_cache_bytes: int):
        """
        Args:
            model: the network.
            batch_size: most rows.
            max_cache_bytes: most memory for keys and values, were all rows to become as long as the longest may.
        """
        self._model = model
        self._batch_size = batch_size
        self._max_cache_bytes = max_cache_bytes
        self._cache = BatchCache(model.config.text, model.language_model.norm.weight.itemsize)
        self._rows: dict[int, _Row] = {}  # by their row of the cache
        self._logits = mx.zeros((0, model.config.text.vocab_size))

    def __len__(self) -> int:
        return len(self._rows)

    def fits(self, lengths: Sequence[int]) -> bool:
        """Whether answers that may become so many tokens long, prompts included, fit in beside those that are here.

        One always does.
        """
        num_rows = len(lengths) + len(self._rows)
        return num_rows <= 1 or num_rows <= self._most_rows(lengths)

    def begin(
        self,
        key: Hashable,
        answer: Answer,
        sampler: Sampler,
        layers: Sequence[KVCache],
        logits: mx.array,
    ) -> None:
        """Begin an answer whose prompt has been read.

        Args:
            key: names the row.
            answer: at its beginning.
            sampler: of the answer.
            layers: what has been read, by layer.
            logits: after the prompt, (1, vocab_size).
        """
        most_tokens = layers[0].offset + answer.budget
        needed = len(self._rows) + 1
        most = max(needed, self._most_rows([most_tokens]))
        if not needed <= self._cache.num_rows <= most:
            self._arrange(min(2 * needed, most))
        number = next(number for number in range(self._cache.num_rows) if number not in self._rows)
        self._cache.put(number, layers)
        self._logits[number] = logits[0]
        mx.eval(self._logits, sampler.state)
        self._rows[number] = _Row(key, answer, sampler, most_tokens)

    def settle(self) -> None:
        """Wait until the step that is enqueued has been computed."""
        mx.eval(self._logits)

    def step(self) -> list[tuple[Hashable, AnswerStep]]:
        """Choose a token for each row, and have the model read them. Rows that end are to be freed before the next."""
        rows = self._rows
        limited = {number: allowed for number, row in rows.items() if (allowed := row.answer.allowed()) is not None}
        samplers = [rows[number].sampler if number in rows else None for number in range(self._cache.num_rows)]
        chosen = choose(self._logits, samplers, limited)
        reported = None
        if any(row.answer.options.logprobs is not None for row in rows.values()):
            reported = log_probabilities(self._logits)
        mx.async_eval(chosen, [] if reported is None else reported, [row.sampler.state for row in rows.values()])
        goes_on = any(row.answer.left > 1 for row in rows.values())
        if goes_on:
            self._cache.begin_step()
            following = logits_after(self._model, chosen[None], self._cache.layers)[0]  # built while the device works
        token_ids: list[int] = chosen.tolist()  # type: ignore[assignment]
        taken = list(token_ids)
        for number in limited:
            taken[number] = rows[number].answer.accept(token_ids[number])
            rows[number].sampler.note(mx.array([taken[number]]))
        if goes_on:
            if taken != token_ids:  # what was built would be for nothing; it writes where this writes, too
                following = logits_after(self._model, mx.array([taken]), self._cache.layers)[0]
            mx.async_eval(following, [rows[number].sampler.state for number in limited])
            self._logits = following  # not enqueued before the step before it has ended, see `decoding.py`
        all_logprobs = None if reported is None else np.array(reported)
        steps = []
        for number, row in rows.items():
            logprobs = None if all_logprobs is None else all_logprobs[number]
            steps.append((row.key, row.answer.take(taken[number], logprobs)))
        self._cache.end_step([number for number, row in rows.items() if row.answer.finish_reason is None])
        return steps

    def free(self, key: Hashable) -> None:
        """Let another answer have a row."""
        number = self._number(key)
        del self._rows[number]
        self._cache.lengths[number] = 0

    def held_layers(self, key: Hashable, length: int) -> list[mx.array]:
        """Copies of the keys and values of a row's first tokens, as `PrefixCache.keep` takes them.

        A row that has ended still has those of all its tokens but the last one, until the next step.
        """
        return self._cache.row(self._number(key), length)

    def release_room(self, is_last: bool) -> None:
        """Release rows that are not used, which cost as much as others; all such rows, if no prompt follows."""
        used, num_rows = len(self._rows), self._cache.num_rows
        if is_last and used < num_rows and 2 * used <= num_rows:
            self._arrange(used)
        elif 0 < 4 * used <= num_rows:  # not at once: the next prompt may be here soon
            self._arrange(2 * used)

    def _number(self, key: Hashable) -> int:
        return next(number for number, row in self._rows.items() if row.key == key)

    def _most_rows(self, lengths: Sequence[int]) -> int:
        longest = max([*lengths, *(row.most_tokens for row in self._rows.values())])
        return max(1, min(self._batch_size, self._max_cache_bytes // self._cache.bytes_per_row(longest)))

    def _arrange(self, num_rows: int) -> None:
        """Let the cache have so many rows, those in use first."""
        used = sorted(self._rows)
        self._cache.arrange(used, num_rows)
        empty = mx.zeros((num_rows - len(used), self._logits.shape[1]), self._logits.dtype)
        self._logits = mx.concatenate([self._logits[mx.array(used, mx.int32)], empty])
        mx.eval(self._logits)
        self._rows = {number: self._rows[row] for number, row in enumerate(used)}
