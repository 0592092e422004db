"""A checkpoint with adapters merged into it, to convert like any other, one tensor at a time."""

from collections.abc import Sequence
from dataclasses import replace

import mlx.core as mx

from ..model.adapters.adapter_files import Adapter
from ..model.adapters.changes import EMBEDDINGS, HEAD, Changes
from ..processor.added_tokens import check_tokens
from .source_checkpoint import Source

_EMBEDDINGS, _HEAD = f"{EMBEDDINGS}.weight", f"{HEAD}.weight"


class MergedSource(Source):
    """A source whose tensors are read with the adapters' changes.

    A tied head that is not to change with the embeddings, or they with it, becomes one of its own.
    """

    def __init__(self, source: Source, adapters: Sequence[tuple[Adapter, float]]):
        """
        Raises:
            ValueError: adapters that do not fit the checkpoint or each other.
        """
        self._source = source
        self._changes = Changes(adapters, source.shapes, source.config.tie_word_embeddings)
        check_tokens(source.folder, [adapter for adapter, _ in adapters], self._changes.vocab_size)
        self.folder, self.formats = source.folder, source.formats
        text = replace(source.config.text, vocab_size=self._changes.vocab_size)
        self.config = replace(source.config, text=text, tie_word_embeddings=self._changes.tie_word_embeddings)
        self.shapes = self._changes.shapes
        self._embeddings: mx.array | None = None  # those of the base, until its head has been made of them

    def as_stored(self) -> Source:
        """There is none: codes cannot be changed without being made anew."""
        raise ValueError("a quantized checkpoint cannot be merged with adapters as it is stored")

    def dtype(self, name: str) -> mx.Dtype:
        """As `Source.dtype`; a head of its own has the type of the embeddings."""
        return self._source.dtype(name if name in self._source.shapes else _EMBEDDINGS)

    def read(self, name: str) -> mx.array:
        """As `Source.read`, merged. The embeddings are read before a head that is made of them."""
        if name in self._source.shapes:
            array = self._source.read(name)
        else:
            assert name == _HEAD and self._embeddings is not None
            array, self._embeddings = self._embeddings, None
        if name == _EMBEDDINGS and _HEAD in self.shapes and _HEAD not in self._source.shapes:
            self._embeddings = array
        return self._changes.merge(name, array)
