"""Logits -> tokens, for one answer or for many at once. Everything stays on the device.

The filters apply in transformers' order: penalty, temperature, top-k, top-p, min-p.
"""

import math
import secrets
from collections.abc import Mapping, Sequence

import mlx.core as mx

from ..options import GenerationOptions


class Sampler:
    """The state of choosing one answer's tokens: its random key and the tokens that have occurred.

    It touches nothing global. After `choose`, evaluate `state` together with the token, so that the next call may come
    from another thread.
    """

    def __init__(self, options: GenerationOptions, prompt_ids: Sequence[int], vocab_size: int):
        """
        Args:
            options: those of the answer.
            prompt_ids: the prompt's tokens, which the repetition penalty counts as said.
            vocab_size: tokens that the model knows.
        """
        self.options = options
        self.filters = (
            options.temperature,
            options.top_p,
            options.top_k,
            options.min_p,
            options.repetition_penalty,
        )
        self._key: mx.array | None = None
        if options.temperature > 0:
            self._key = mx.random.key(secrets.randbits(63) if options.seed is None else options.seed)
        self._seen: mx.array | None = None
        if options.repetition_penalty != 1:
            self._seen = mx.zeros((1, vocab_size), mx.bool_)
            self._seen[:, mx.array(list(prompt_ids))] = True

    @property
    def state(self) -> list[mx.array]:
        """The arrays that are held."""
        return [array for array in (self._key, self._seen) if array is not None]

    @property
    def seen(self) -> mx.array | None:
        """Which tokens have occurred, (1, vocab_size) bool; None without a repetition penalty."""
        return self._seen

    def draw(self, logits: mx.array) -> mx.array:
        """A random token, (1,), from filtered logits, (1, vocab_size)."""
        assert self._key is not None
        keys = mx.random.split(self._key)
        self._key = keys[0]
        return mx.random.categorical(logits, key=keys[1])

    def note(self, token: mx.array) -> None:
        """Remember that a token, (1,), has occurred."""
        if self._seen is not None:
            self._seen = self._seen | (mx.arange(self._seen.shape[1]) == token[:, None])


def choose(
    logits: mx.array, samplers: Sequence[Sampler | None], allowed: Mapping[int, mx.array] | None = None
) -> mx.array:
    """Choose the next token of each row.

    Args:
        logits: (num_rows, vocab_size).
        samplers: one for each row; a row without one gets an arbitrary token.
        allowed: (1, vocab_size) bool by row, for those rows whose tokens are limited.

    Returns:
        (num_rows,) tokens, each the one that its row would get alone. They are noted as occurred, except in limited
        rows, where a grammar may still replace the token.
    """
    if not allowed and all(sampler is None or sampler.options.is_greedy for sampler in samplers):
        return mx.argmax(logits, axis=-1)
    groups: dict[tuple[float, ...], list[int]] = {}
    for row, sampler in enumerate(samplers):
        if sampler is not None:
            groups.setdefault(sampler.filters, []).append(row)
    tokens = [mx.zeros(1, mx.uint32)] * len(samplers)
    for rows in groups.values():
        members = [sampler for row in rows if (sampler := samplers[row]) is not None]
        part = logits if len(rows) == len(samplers) else logits[mx.array(rows)]
        limits = _stacked([None if allowed is None else allowed.get(row) for row in rows], part.shape[1])
        part = adjusted(part, members[0].options, limits, _stacked([member.seen for member in members], part.shape[1]))
        if members[0].options.temperature == 0:
            likeliest = mx.argmax(part, axis=-1)
            chosen = [likeliest[number : number + 1] for number in range(len(rows))] if len(rows) > 1 else [likeliest]
        else:
            chosen = [member.draw(part[number : number + 1]) for number, member in enumerate(members)]
        for row, member, token in zip(rows, members, chosen, strict=True):
            tokens[row] = token
            if allowed is None or row not in allowed:
                member.note(token)
    return tokens[0] if len(tokens) == 1 else mx.concatenate(tokens)


def _stacked(rows: Sequence[mx.array | None], vocab_size: int) -> mx.array | None:
    """(num_rows, vocab_size) bool; a row without an array is all true. None if there is none."""
    if all(row is None for row in rows):
        return None
    everything = mx.ones((1, vocab_size), mx.bool_)
    stacked = [everything if row is None else row for row in rows]
    return stacked[0] if len(stacked) == 1 else mx.concatenate(stacked)


def adjusted(
    logits: mx.array, options: GenerationOptions, allowed: mx.array | None = None, seen: mx.array | None = None
) -> mx.array:
    """The logits, (num_rows, vocab_size) float32, that tokens are drawn by, or the likeliest of which is taken."""
    logits = logits.astype(mx.float32)
    if allowed is not None:
        logits = mx.where(allowed, logits, -mx.inf)
    if seen is not None:
        logits = mx.where(seen, penalize(logits, options.repetition_penalty), logits)
    if options.temperature == 0:
        return logits
    # Beyond, float32 overflows; these are greedy, and uniform, all but in name.
    temperature = min(max(float(options.temperature), 1e-6), 1e30)
    return filter_logits(logits / temperature, options)


def penalize(logits: mx.array, penalty: float) -> mx.array:
    """Make every token less likely by a factor on its logit."""
    penalty = min(max(float(penalty), 1e-20), 1e20)  # beyond, float32 overflows; MLX takes no integers above 64 bits
    return mx.where(logits > 0, logits / penalty, logits * penalty)


def filter_logits(logits: mx.array, options: GenerationOptions) -> mx.array:
    """Set the logits that top-k, top-p and min-p rule out to minus infinity; the likeliest always stays."""
    vocab_size = logits.shape[-1]
    if 0 < options.top_k < vocab_size:
        threshold = mx.sort(logits, axis=-1)[:, -options.top_k, None]
        logits = mx.where(logits < threshold, -mx.inf, logits)
    if options.top_p < 1:
        order = mx.argsort(-logits, axis=-1)
        probabilities = mx.softmax(mx.take_along_axis(logits, order, axis=-1), axis=-1)
        before = mx.cumsum(probabilities, axis=-1) - probabilities  # share of the likelier ones
        ranked = mx.where(before < options.top_p, mx.take_along_axis(logits, order, axis=-1), -mx.inf)
        logits = mx.put_along_axis(logits, order, ranked, axis=-1)
    if options.min_p > 0:
        threshold = mx.max(logits, axis=-1, keepdims=True) + math.log(options.min_p)
        logits = mx.where(logits < threshold, -mx.inf, logits)
    return logits


def log_probabilities(logits: mx.array) -> mx.array:
    """(num_rows, vocab_size) -> natural logarithms of the model's own probabilities, float32, of the same shape."""
    logits = logits.astype(mx.float32)
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


class NotFiniteError(ValueError):
    """A model computes values that are not finite."""


def check_finite(logits: mx.array) -> None:
    """Raise NotFiniteError if a model computes values that are not finite."""
    if not mx.isfinite(logits).all().item():
        raise NotFiniteError(
            f"the model computes values that are not finite in {str(logits.dtype).removeprefix('mlx.core.')}; "
            "load it with dtype bfloat16 or float32, and if they persist the weights are damaged"
        )
