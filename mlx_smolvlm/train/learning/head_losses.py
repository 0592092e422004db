"""The head, and the losses of tokens: a vocabulary is wide, so logits are held of a few tokens at a time."""

import math
from collections.abc import Callable, Iterator
from typing import Any, cast

import mlx.core as mx

_LOGITS = 4 * 1024**2  # numbers that are held at a time
_TOKENS_OF_TRAINED = 512  # each chunk of a head whose weights are trained has a gradient as large as these

Head = Callable[[mx.array], mx.array]


def tokens_at_once(vocab_size: int, is_whole: bool = False) -> int:
    """Of how many tokens logits are held.

    Args:
        vocab_size: of the head.
        is_whole: whether its weights themselves are trained.
    """
    return max(_LOGITS // vocab_size, _TOKENS_OF_TRAINED if is_whole else 1)


def chunks(num_tokens: int, size: int) -> Iterator[slice]:
    """All tokens, so many at a time; there is at least one chunk."""
    yield from (slice(start, start + size) for start in range(0, max(num_tokens, 1), size))


def losses_of_frozen_head(head: Head, hidden: mx.array, targets: mx.array, size: int) -> mx.array:
    """Cross entropies; the gradient of the hidden states is computed with them, so no logits are kept for it.

    Args:
        head: a linear map, (1, n, hidden_size) -> (1, n, vocab_size), of which nothing is trained.
        hidden: (num_tokens, hidden_size).
        targets: (num_tokens,) int32.
        size: tokens of a chunk.

    Returns:
        (num_tokens,) float32.
    """
    stream = mx.default_stream(mx.default_device())
    slopes: list[mx.array] = []

    @mx.custom_function
    def losses(hidden: mx.array) -> mx.array:
        found: list[mx.array] = []
        for chunk in chunks(hidden.shape[0], size):
            own = hidden[chunk]
            if found:  # one after the other
                own = mx.depends([own], [found[-1], slopes[-1]])[0]
            loss, slope = _with_slope(head, own, targets[chunk])
            found.append(loss)
            slopes.append(slope)
        return mx.concatenate(found)

    @losses.vjp
    def way_back(hidden: mx.array, cotangent: mx.array, _: mx.array) -> mx.array:
        with mx.stream(stream):
            whole: mx.array = cotangent[:, None] * mx.concatenate(slopes)
            return whole.astype(hidden.dtype)

    out: Any = losses(hidden)
    return cast(mx.array, out)


def _with_slope(head: Head, hidden: mx.array, targets: mx.array) -> tuple[mx.array, mx.array]:
    """Cross entropies, and their derivatives by the hidden states: (n, hidden_size) -> (n,), (n, hidden_size)."""
    hidden = mx.stop_gradient(hidden)
    logits = head(hidden[None])[0]
    shifted, exponentials, sums = _parts(logits.astype(mx.float32))
    places = targets[:, None]
    losses = mx.log(sums) - mx.take_along_axis(shifted, places, 1)[:, 0]
    shares = exponentials / sums[:, None]
    less = mx.put_along_axis(shares, places, mx.take_along_axis(shares, places, 1) - 1, 1)
    _, slopes = mx.vjp(lambda x: head(x[None])[0], [hidden], [less.astype(logits.dtype)])
    return losses, slopes[0]


def cross_entropies(logits: mx.array, targets: mx.array) -> mx.array:
    """(n, vocab_size) float32, (n,) -> (n,) float32."""
    shifted, _, sums = _parts(logits)
    return mx.log(sums) - mx.take_along_axis(shifted, targets[:, None], 1)[:, 0]


def _parts(logits: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """Logits less the largest of their row, exponentials of that, and the sums of these.

    MLX's CPU backend adds a row up number by number: over 49,280 of them, that loses three digits, in the loss and in
    its gradient. So the sum is made of sums.
    """
    shifted = logits - mx.stop_gradient(logits.max(-1, keepdims=True))
    exponentials = mx.exp(shifted)
    num_rows, size = logits.shape
    width = math.isqrt(size)
    whole = size // width * width
    sums = exponentials[:, :whole].reshape(num_rows, -1, width).sum(-1).sum(-1) + exponentials[:, whole:].sum(-1)
    return shifted, exponentials, sums
