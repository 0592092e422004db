"""The first token -> all others, each as soon as it is certain."""

from collections.abc import Iterator

import mlx.core as mx

from ..model.caches.kv_cache import KVCache
from ..model.smolvlm import SmolVLM
from .prompt_cache import PromptCache
from .prompt_lookup import PromptLookup
from .sampling import Sampler

RUN_AHEAD_BYTES = 64 * 1024**2
"""Most memory of keys and values up to which a step is started before the one before it has ended.

A GPU then has no pause between two steps, but a buffer that it still reads from cannot be written in place: MLX copies
it. A pause is shorter than it takes any Mac to copy this much.
"""


def decode(
    model: SmolVLM,
    cache: PromptCache,
    sample: Sampler,
    token: mx.array,
    max_tokens: int,
    lookup: PromptLookup | None,
) -> Iterator[int]:
    """Yield up to `max_tokens` tokens, beginning with `token`, (1,), which the cache does not hold yet.

    The next step is built before a token is read, so that the device does not wait for Python; and started, too,
    unless the cache is large (`RUN_AHEAD_BYTES`). At each yield the cache notes exactly the tokens that its layers
    hold, so that it can go on from there.

    With `lookup`, `sample` must take the likeliest token: drafts are read in one step and those of their tokens
    that it would have chosen are kept, with the one it chooses after them.
    """
    mx.async_eval(token)  # on its own: what is enqueued together is ready together
    left = max_tokens
    while left:
        drafting = lookup is not None and lookup.is_sure and left > 1
        if left > 1 and not drafting:
            following = sample(logits_after(model, token[None], cache.layers)[:, -1])
            if cache.nbytes <= RUN_AHEAD_BYTES:
                mx.async_eval(following)
        token_id = int(token.item())  # type: ignore[arg-type]
        if left > 1 and not drafting:
            mx.async_eval(following)  # where that was not done above
        if lookup is not None:
            lookup.add(token_id)
        if drafting and lookup is not None:
            read = [token_id, *lookup.draft(left - 2)]
            chosen = sample(logits_after(model, mx.array([read]), cache.layers)[0])  # (len(read),), what follows each
            mx.async_eval(chosen)
            cache.extend(read)
            yield token_id
            left -= 1
            choices: list[int] = chosen.tolist()  # type: ignore[assignment]
            accepted = _accepted(read[1:], choices)
            if len(read) > 1:
                lookup.judge(len(read) - 1, len(accepted))
                cache.trim(len(cache.token_ids) - len(read) + 1 + len(accepted))
            for token_id in accepted:
                lookup.add(token_id)
                yield token_id
                left -= 1
            following = mx.array([choices[len(accepted)]])
        else:
            if left > 1:
                cache.extend([token_id])
            yield token_id
            left -= 1
        token = following


def _accepted(draft: list[int], chosen: list[int]) -> list[int]:
    """The beginning of a draft that agrees with what the model chose at each of its tokens."""
    count = next((i for i, token in enumerate(draft) if token != chosen[i]), len(draft))
    return draft[:count]


def logits_after(model: SmolVLM, token_ids: mx.array, layers: list[KVCache]) -> mx.array:
    """(1, num_tokens) -> logits after each, (1, num_tokens, vocab_size)."""
    embeddings = model.language_model.embed_tokens(token_ids)
    return model.language_model.logits(model.language_model(embeddings, layers))
