"""One answer, token by token, with the next step already built."""

from collections.abc import Generator, Iterator

import mlx.core as mx
import numpy as np

from ..model.caches.kv_cache import KVCache
from ..model.smolvlm import SmolVLM
from .answer import Answer, AnswerStep
from .prompt_cache import PromptCache
from .prompt_lookup import PromptLookup
from .sampling import Sampler, choose

RUN_AHEAD_BYTES = 64 * 1024**2
"""Most memory of keys and values up to which a step is started before the one before it has ended.

A GPU then has no pause between two steps, but a buffer that it still reads from cannot be written in place: MLX copies
it. A pause is shorter than it takes any Mac to copy this much.
"""


def decode(
    model: SmolVLM, cache: PromptCache, answer: Answer, sampler: Sampler, logits: mx.array, lookup: PromptLookup | None
) -> Iterator[AnswerStep]:
    """Yield an answer's tokens to its end.

    The next step is built before a token is read, so that the device does not wait for Python; and started, too,
    unless the cache is large (`RUN_AHEAD_BYTES`). Where a grammar limits the tokens, it looks at one while the device
    works on the step after it. At each yield the cache notes exactly the tokens that its layers hold, so that it can go
    on from there, and every array that is held has been enqueued, so that another thread can.

    Args:
        model: the network.
        cache: holds the prompt.
        answer: with a budget of at least one token.
        sampler: of the answer.
        logits: after the prompt, (1, vocab_size).
        lookup: drafts tokens, which are checked in one step. The answer must be greedy and free.
    """
    token: mx.array | None = None
    while answer.finish_reason is None:
        if token is None:
            token = _choose(sampler, logits, answer)
        reported = answer.log_probabilities(logits)
        # Before the step after it: what is enqueued together is ready together.
        mx.async_eval(token, sampler.state, [] if reported is None else reported)
        goes_on = answer.left > 1
        if goes_on and lookup is not None and lookup.is_sure:
            logits = yield from _drafted(model, cache, answer, token, reported, lookup)
            token = None
            continue
        following: mx.array | None = None
        if goes_on:
            next_logits = logits_after(model, token[None], cache.layers)[:, -1]
            if answer.constraint is None:
                following = _choose(sampler, next_logits, answer)
            ahead = [next_logits if following is None else following, *sampler.state]
            if cache.nbytes <= RUN_AHEAD_BYTES:
                mx.async_eval(ahead)
        chosen = int(token.item())  # type: ignore[arg-type]
        token_id = answer.accept(chosen)
        if goes_on:
            if token_id != chosen:  # the step was for nothing
                cache.trim(len(cache.token_ids))
                next_logits = logits_after(model, mx.array([[token_id]]), cache.layers)[:, -1]
                ahead = [next_logits]
            mx.async_eval(ahead)
            cache.extend([token_id])
        if answer.constraint is not None:
            sampler.note(mx.array([token_id]))
            mx.async_eval(sampler.state)
        if lookup is not None:
            lookup.add(token_id)
        step = answer.take(token_id, _row(reported, 0))
        if goes_on:
            logits, token = next_logits, following
        yield step


def _choose(sampler: Sampler, logits: mx.array, answer: Answer) -> mx.array:
    allowed = answer.allowed()
    return choose(logits, [sampler], None if allowed is None else {0: allowed})


def _drafted(
    model: SmolVLM,
    cache: PromptCache,
    answer: Answer,
    token: mx.array,
    reported: mx.array | None,
    lookup: PromptLookup,
) -> Generator[AnswerStep, None, mx.array]:
    """Read a chosen token with a draft of those after it in one step, and yield those that the model would choose.

    Returns:
        The logits after the last one, (1, vocab_size).
    """
    token_id = int(token.item())  # type: ignore[arg-type]
    lookup.add(token_id)
    read = [token_id, *lookup.draft(answer.left - 2)]
    logits = logits_after(model, mx.array([read]), cache.layers)[0]  # (len(read), vocab_size), after each
    chosen, after = mx.argmax(logits, axis=-1), answer.log_probabilities(logits)
    mx.async_eval(chosen, logits, [] if after is None else after)
    cache.extend(read)
    yield answer.take(token_id, _row(reported, 0))
    choices: list[int] = chosen.tolist()  # type: ignore[assignment]
    accepted = _accepted(read[1:], choices)
    if len(read) > 1:
        lookup.judge(len(read) - 1, len(accepted))
        cache.trim(len(cache.token_ids) - len(read) + 1 + len(accepted))
    for number, draft in enumerate(accepted):
        if answer.finish_reason is not None:
            break
        lookup.add(draft)
        yield answer.take(draft, _row(after, number))
    return logits[len(accepted)][None]


def _accepted(draft: list[int], chosen: list[int]) -> list[int]:
    """The beginning of a draft that agrees with what the model chose at each of its tokens."""
    count = next((i for i, token in enumerate(draft) if token != chosen[i]), len(draft))
    return draft[:count]


def _row(reported: mx.array | None, row: int) -> np.ndarray | None:
    return None if reported is None else np.array(reported)[row]


def logits_after(model: SmolVLM, token_ids: mx.array, layers: list[KVCache]) -> mx.array:
    """(1, num_tokens) -> logits after each, (1, num_tokens, vocab_size)."""
    embeddings = model.language_model.embed_tokens(token_ids)
    return model.language_model.logits(model.language_model(embeddings, layers))
