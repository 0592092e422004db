"""Keys and values of earlier conversations, for prompts that begin with the same tokens and media."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from weakref import ref

import mlx.core as mx
import numpy as np

from ..model.caches.kv_cache import KVCache
from ..model.smolvlm import SmolVLM
from ..processor.prompt import Prompt
from .prompt_cache import PromptCache, ReadMedium, shared_beginning

MOST_EMPTY = 0.25  # of the room in buffers that are kept as they are, in proportion to what they hold
LEAST_TOKENS = 16  # shared by two prompts: every conversation begins with the same few


@dataclass(frozen=True)
class _Prefix:
    """Which model has read what: tokens, the media among them, and keys and values by layer: arrays, quantized or not,
    of (1, 2 * num_key_value_heads, at least as many as there are tokens, ...)."""

    model: "ref[SmolVLM]"
    token_ids: np.ndarray
    media: list[ReadMedium]
    layers: list[list[mx.array]]

    @property
    def nbytes(self) -> int:
        """Of all arrays."""
        return self.token_ids.nbytes + sum(array.nbytes for layer in self.layers for array in layer)


class PrefixCache:
    """Keys and values of several conversations, the least recently used evicted first.

    What a prompt shares with one of them, images and videos by content, is copied into its own cache and not read
    again. Each model continues what it has read itself, never what another has, were it the same base with other
    adapters. Models are not kept alive. Caches are of one kind, which do not rotate.

    Attributes:
        max_bytes: most memory that they may take; 0 keeps none.
        size_bytes: what they take.
    """

    def __init__(self, max_bytes: int, quantized_kv_start: int = 0):
        """`quantized_kv_start`: of the caches that are filled; up to so many tokens they are not quantized."""
        self.max_bytes = max_bytes
        self._quantized_kv_start = quantized_kv_start
        self.size_bytes = 0
        self._prefixes: OrderedDict[int, _Prefix] = OrderedDict()
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._prefixes)

    def fill(self, cache: PromptCache, prompt: Prompt) -> int:
        """Copy into an empty cache what a prompt shares with the best of those that are kept.

        Returns:
            Tokens copied.
        """
        shared = {
            number: self._shared(prefix, prompt)
            for number, prefix in self._prefixes.items()
            if prefix.model() is cache.model
        }
        best = max(shared, key=lambda number: shared[number], default=None)
        if best is None or shared[best] < LEAST_TOKENS:
            return 0
        length, prefix = shared[best], self._prefixes[best]
        self._prefixes.move_to_end(best)
        for layer, kept in zip(cache.layers, prefix.layers, strict=True):
            layer.fill([array[:, :, :length] for array in kept])
        mx.eval([layer.state for layer in cache.layers])
        cache.extend(prefix.token_ids[:length].tolist())
        cache.media = [medium for medium in prefix.media if medium.end <= length]
        return length

    def keep(
        self,
        model: SmolVLM,
        token_ids: Sequence[int],
        media: Sequence[ReadMedium],
        layers: Sequence[list[mx.array]],
    ) -> None:
        """Keep what a conversation has read. It takes the place of those that it continues.

        Args:
            model: what has read it.
            token_ids: the tokens.
            media: the images and videos among them.
            layers: keys and values by layer, (1, 2 * num_key_value_heads, at least len(token_ids), ...), in arrays that
                nobody writes to any more.
        """
        new = _Prefix(ref(model), np.asarray(token_ids, np.int32), list(media), list(layers))
        if new.nbytes > self.max_bytes or len(new.token_ids) < LEAST_TOKENS:
            return
        for number, prefix in list(self._prefixes.items()):
            if _begins_with(prefix, new):
                self._prefixes.move_to_end(number)
                return
            if _begins_with(new, prefix):
                self._evict(number)
        self._prefixes[next(self._numbers)] = new
        self.size_bytes += new.nbytes
        while self.size_bytes > self.max_bytes:
            self._evict(next(iter(self._prefixes)))

    def _shared(self, prefix: _Prefix, prompt: Prompt) -> int:
        shared = shared_beginning(prefix.token_ids, prefix.media, prompt)  # type: ignore[arg-type]
        is_quantized = len(prefix.layers[0]) > 1
        return 0 if is_quantized and shared <= self._quantized_kv_start else shared

    def _evict(self, number: int) -> None:
        self.size_bytes -= self._prefixes.pop(number).nbytes


def _begins_with(longer: _Prefix, shorter: _Prefix) -> bool:
    length, num_media = len(shorter.token_ids), len(shorter.media)
    return (
        longer.model() is shorter.model()
        and len(longer.token_ids) >= length
        and longer.media[:num_media] == shorter.media
        and bool(np.array_equal(longer.token_ids[:length], shorter.token_ids))
        and all(medium.start >= length for medium in longer.media[num_media:])
    )


def released_layers(layers: Sequence[KVCache], length: int) -> list[list[mx.array]]:
    """What caches hold of the first `length` tokens, evaluated, to be kept. Nobody writes to them any more, so buffers
    are copied only if much of them is empty."""
    is_full = all(array.shape[2] <= length * (1 + MOST_EMPTY) for layer in layers for array in layer.state)
    kept = [layer.state if is_full else [mx.contiguous(array) for array in layer.held(length)] for layer in layers]
    mx.eval(kept)
    return kept
