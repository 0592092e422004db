"""Logits -> token."""

import math
import secrets
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx


@dataclass(frozen=True)
class SamplingOptions:
    """How a token is chosen. The filters apply in transformers' order: penalty, temperature, top-k, top-p, min-p.

    Attributes:
        temperature: 0 takes the likeliest token (greedy); the other filters then change nothing but the penalty.
        top_p: keep the likeliest tokens whose probabilities add up to this share, in (0, 1].
        top_k: keep this many of the likeliest tokens; 0 keeps all.
        min_p: drop tokens less likely than this share of the likeliest one's probability, in [0, 1].
        repetition_penalty: divide the logits of tokens that have occurred, in the prompt too, by this (negative
            ones are multiplied); 1 changes nothing.
        seed: fixes the random choices; None takes fresh entropy.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        checks = (
            ("temperature", 0 <= self.temperature < math.inf, "0 or more"),
            ("top_p", 0 < self.top_p <= 1, "more than 0 and at most 1"),
            ("top_k", isinstance(self.top_k, int) and self.top_k >= 0, "a whole number, 0 or more"),
            ("min_p", 0 <= self.min_p <= 1, "from 0 to 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "more than 0"),
            ("seed", self.seed is None or (isinstance(self.seed, int) and 0 <= self.seed < 2**64), "0 to 2**64 - 1"),
        )
        for name, holds, expected in checks:
            if not holds:
                raise ValueError(f"{name} is {getattr(self, name)}, expected {expected}")

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken, whatever was said before."""
        return self.temperature == 0 and self.repetition_penalty == 1


class Sampler(Protocol):
    """A function from logits (1, vocab_size) to the next token (1,), one of those `allowed` (1, vocab_size) bool."""

    def __call__(self, logits: mx.array, allowed: mx.array | None = None) -> mx.array: ...


def make_sampler(options: SamplingOptions, prompt_ids: list[int], vocab_size: int) -> Sampler:
    """A sampler that stays on the device throughout.

    It holds its own random keys and its own record of tokens seen, and touches nothing global. What it holds between
    two calls is computed when the token is, so that the next call may come from another thread.
    """
    keys = new_keys(options)
    seen = seen_in(prompt_ids, vocab_size) if options.repetition_penalty != 1 else None
    latest: mx.array | None = None

    def sample(logits: mx.array, allowed: mx.array | None = None) -> mx.array:
        nonlocal keys, seen, latest
        if seen is not None and latest is not None:
            seen = with_tokens(seen, latest)
        logits = adjusted(logits, options, allowed, seen)
        if options.temperature == 0:
            latest = mx.argmax(logits, axis=-1)
        else:
            keys = mx.random.split(keys[0])
            latest = mx.random.categorical(logits, key=keys[1])
        return latest

    return sample


def new_keys(options: SamplingOptions) -> mx.array:
    """Where an answer's random choices begin: keys of which each step splits the first and draws by the second."""
    return mx.random.key(secrets.randbits(63) if options.seed is None else options.seed)[None]


def seen_in(prompt_ids: list[int], vocab_size: int) -> mx.array:
    """Which tokens have occurred, (1, vocab_size) bool."""
    seen = mx.zeros((1, vocab_size), mx.bool_)
    seen[:, mx.array(prompt_ids)] = True
    return seen


def with_tokens(seen: mx.array, tokens: mx.array) -> mx.array:
    """`seen`, (n, vocab_size), after a token more of each, (n,)."""
    return seen | (mx.arange(seen.shape[1]) == tokens[:, None])


def adjusted(
    logits: mx.array, options: SamplingOptions, allowed: mx.array | None = None, seen: mx.array | None = None
) -> mx.array:
    """The logits, (n, vocab_size), that tokens are drawn by, or the likeliest of which is taken."""
    logits = logits.astype(mx.float32)
    if allowed is not None:
        logits = mx.where(allowed, logits, -mx.inf)
    if seen is not None:
        logits = mx.where(seen, penalize(logits, options.repetition_penalty), logits)
    if options.temperature == 0:
        return logits
    temperature = max(options.temperature, 1e-6)  # below, float32 overflows; this is greedy all but in name
    return filter_logits(logits / temperature, options)


def penalize(logits: mx.array, penalty: float) -> mx.array:
    """Make every token less likely by a factor on its logit."""
    return mx.where(logits > 0, logits / penalty, logits * penalty)


def filter_logits(logits: mx.array, options: SamplingOptions) -> mx.array:
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


def check_finite(logits: mx.array) -> None:
    """Raise ValueError if a model computes values that are not finite."""
    if not mx.isfinite(logits).all().item():
        raise ValueError(
            f"the model computes values that are not finite in {str(logits.dtype).removeprefix('mlx.core.')}; "
            "load it with dtype bfloat16 or float32, and if they persist the weights are damaged"
        )
