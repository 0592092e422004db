"""Keys and values of a conversation, so that the next question need not read it again."""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from ..model.caches.kv_cache import KVCache
from ..model.smolvlm import SmolVLM
from ..options import GenerationOptions
from ..processor.prompt import Prompt
from .exclusive import Exclusive


@dataclass(frozen=True)
class ReadMedium:
    """The place of the image tokens of an image or video, and the digest of its content."""

    start: int
    end: int
    digest: bytes


class PromptCache:
    """The keys and values of a conversation, its answers included.

    Pass one object to successive calls of `stream_generate`: the beginning that a prompt shares with the last one,
    images and videos by content, is neither read, encoded nor decoded again. One stream at a time, from its first
    `next()` to its last step; one model; the same options of the key-value cache. With `max_kv_size`, only what
    continues the conversation is kept: once tokens have been forgotten, a prompt that departs from what was read is
    read from its beginning.

    Attributes:
        token_ids: the tokens that are held.
        layers: their keys and values.
        media: the images and videos among them.
        in_use: held by the stream that reads into it.
    """

    def __init__(self) -> None:
        self.in_use = Exclusive(
            "the prompt cache is in use by another stream; finish or close that one first, or use one cache for each"
        )
        self.token_ids: list[int] = []
        self.layers: list[KVCache] = []
        self.media: list[ReadMedium] = []
        self._model: SmolVLM | None = None
        self._options = GenerationOptions()
        self._is_restored = False  # from a file, and not used since

    @property
    def model(self) -> SmolVLM | None:
        """The model that it is bound to."""
        return self._model

    @property
    def nbytes(self) -> int:
        """Memory that the keys and values take."""
        return len(self.layers) * sum(array.nbytes for array in self.layers[0].state)  # layers are alike

    def open(self, model: SmolVLM, options: GenerationOptions) -> None:
        """Bind an unused cache to a model and to the options of its key-value cache.

        What was restored from a file is forgotten, and read again, where the options ask for another kind of cache.

        Raises:
            ValueError: it is bound to another.
        """
        if self._model is None:
            self._bind(model, options)
        elif self._model is not model:
            raise ValueError("the prompt cache holds what another model has read; use one cache for each model")
        elif self._options.cache_options != options.cache_options:
            if not self._is_restored:
                raise ValueError(
                    f"the prompt cache was begun with {_shown(self._options)}, not {_shown(options)}; "
                    "use one cache for each"
                )
            self._bind(model, options)
        self._is_restored = False

    def _bind(self, model: SmolVLM, options: GenerationOptions) -> None:
        self._model, self._options, self.layers = model, options, model.make_cache(options)
        self.token_ids, self.media = [], []

    def begin(self, prompt: Prompt) -> None:
        """Keep what a prompt shares with what is held, but not its last token; the rest is forgotten."""
        self.trim(shared_beginning(self.token_ids, self.media, prompt))

    def extend(self, token_ids: list[int]) -> None:
        """Note tokens that the layers have been given."""
        self.token_ids.extend(token_ids)

    def note_media(self, prompt: Prompt) -> None:
        """Remember what the images and videos of a prompt were, once all of it is read."""
        pairs = zip(prompt.spans, prompt.media, strict=True)
        self.media = [ReadMedium(start, end, medium.digest) for (start, end), medium in pairs]

    def trim(self, length: int) -> None:
        """Forget all but the first `length` tokens; everything, where a layer cannot go back there."""
        if not all(layer.trim(length) for layer in self.layers):
            self.trim(0)
            return
        self.token_ids = self.token_ids[:length]
        self.media = [read for read in self.media if read.end <= length]

    def arrays(self) -> dict[str, mx.array]:
        """The keys and values of the tokens that are held, as `KVCache.append` takes them, by layer."""
        length = len(self.token_ids)
        return {
            str(number): layer.buffer[:, :, :length]
            for number, layer in enumerate(self.layers)
            if layer.buffer is not None
        }

    def restore(
        self, model: SmolVLM, token_ids: list[int], media: list[ReadMedium], arrays: dict[str, mx.array]
    ) -> None:
        """Take over the content of another cache of the same model. Raises KeyError if keys and values are missing."""
        self.open(model, GenerationOptions())
        self.token_ids, self.media = list(token_ids), list(media)
        if token_ids:
            for number, layer in enumerate(self.layers):
                layer.append(arrays[str(number)])
            mx.eval([layer.state for layer in self.layers])  # another thread may go on from here
        self._is_restored = True


def shared_beginning(token_ids: Sequence[int], media: Sequence[ReadMedium], prompt: Prompt) -> int:
    """Number of tokens that a prompt shares with what was read, without its last one, whose logits are needed.

    Tokens that stand for an image or a video are shared if all of it was read before and is the same.
    """
    shared = _shared_length(token_ids, prompt.input_ids[:-1])
    for number, (start, end) in enumerate(prompt.spans):
        if start >= shared:
            break
        read = media[number] if number < len(media) else None
        if end > shared or read != ReadMedium(start, end, prompt.media[number].digest):
            shared = start
    return shared


def _shared_length(left: Sequence[int], right: Sequence[int]) -> int:
    length = min(len(left), len(right))
    differs = np.asarray(left[:length], np.int64) != np.asarray(right[:length], np.int64)
    return int(np.argmax(differs)) if differs.any() else length


def _shown(options: GenerationOptions) -> str:
    names = ("kv_bits", "kv_group_size", "quantized_kv_start", "max_kv_size")
    return ", ".join(f"{name}={value}" for name, value in zip(names, options.cache_options, strict=True))
