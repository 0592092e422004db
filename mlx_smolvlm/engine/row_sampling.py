"""Logits of several answers -> a token of each, as each would get it alone."""

from collections.abc import Mapping, Sequence

import mlx.core as mx

from .sampling import SamplingOptions, adjusted, new_keys, seen_in, with_tokens


class RowSampler:
    """What `make_sampler` is for one answer. Filters work on all rows at once; each draws by a key of its own."""

    def __init__(self, options: SamplingOptions, vocab_size: int):
        self._options = options
        self._vocab_size = vocab_size
        self._keys: dict[int, mx.array] = {}  # by row
        self._seen = mx.zeros((0, vocab_size), mx.bool_) if options.repetition_penalty != 1 else None

    @property
    def state(self) -> list[mx.array]:
        """The arrays that are held. They are to be evaluated before another thread goes on."""
        return [*self._keys.values(), *([] if self._seen is None else [self._seen])]

    def arrange(self, rows: Sequence[int], num_rows: int) -> None:
        """Keep some rows, in this order, and have `num_rows`."""
        self._keys = {number: self._keys[row] for number, row in enumerate(rows)}
        if self._seen is not None:
            empty = mx.zeros((num_rows - len(rows), self._vocab_size), mx.bool_)
            self._seen = mx.concatenate([self._seen[mx.array(list(rows), mx.int32)], empty])

    def begin(self, row: int, prompt_ids: list[int]) -> None:
        """Begin an answer in a row."""
        self._keys[row] = new_keys(self._options)
        if self._seen is not None:
            self._seen[row] = seen_in(prompt_ids, self._vocab_size)[0]

    def __call__(self, logits: mx.array, rows: Sequence[int], allowed: Mapping[int, mx.array]) -> mx.array:
        """Choose the next tokens.

        Args:
            logits: (num_rows, vocab_size).
            rows: those with an answer; any token is given for the others.
            allowed: (1, vocab_size) bool for rows whose tokens are limited.

        Returns:
            (num_rows,).
        """
        options = self._options
        if options.is_greedy and not allowed:
            return mx.argmax(logits, axis=-1)
        logits = adjusted(logits, options, self._all_allowed(allowed, len(logits)), self._seen)
        if options.temperature == 0:
            tokens = mx.argmax(logits, axis=-1)
        else:
            drawn = [mx.zeros(1, mx.uint32)] * len(logits)
            for row in rows:
                self._keys[row] = keys = mx.random.split(self._keys[row][0])
                drawn[row] = mx.random.categorical(logits[row : row + 1], key=keys[1])
            tokens = mx.concatenate(drawn)
        if self._seen is not None:
            self._seen = with_tokens(self._seen, tokens)
        mx.async_eval(tokens, self.state)
        return tokens

    def _all_allowed(self, allowed: Mapping[int, mx.array], num_rows: int) -> mx.array | None:
        """(num_rows, vocab_size) bool."""
        if not allowed:
            return None
        everything = mx.ones((1, self._vocab_size), mx.bool_)
        return mx.concatenate([allowed.get(row, everything) for row in range(num_rows)])
