"""Image features of tiles that were encoded before."""

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from itertools import count
from threading import Lock
from typing import Any
from weakref import ref

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from ..model.layers.streams import with_side_streams
from ..model.smolvlm import SmolVLM
from ..options import is_whole, quoted


class FeatureCache:
    """Features by the content of their tile, the least recently used evicted first.

    Pass one object to calls of `stream_generate` that may show the same image or frame again, from any number of
    threads. One model.

    Attributes:
        max_bytes: most memory that the features may take.
        size_bytes: what they take.
        num_asked, num_encoded: tiles whose features were asked for so far, and those that had to be encoded.

    Raises:
        ValueError: `max_bytes` below 0, or no whole number.
    """

    def __init__(self, max_bytes: int = 256 * 1024**2):
        if not is_whole(max_bytes, 0):
            raise ValueError(f"a feature cache's max_bytes is {quoted(max_bytes)}, expected a whole number, 0 or more")
        self.max_bytes = max_bytes
        self.size_bytes = 0
        self.num_asked = self.num_encoded = 0
        self._features: OrderedDict[tuple[int, bytes], mx.array] = OrderedDict()
        self._model: SmolVLM | None = None
        self._lock = Lock()  # held while features are looked up or kept, not while they are computed

    def encode(
        self, model: SmolVLM, tiles: list[np.ndarray], check_cancelled: Callable[[], None] = lambda: None
    ) -> list[mx.array]:
        """Image features of tiles, computed for those alone that are new.

        Args:
            model: the model whose features these are.
            tiles: (tile_size, tile_size, 3) uint8 each.
            check_cancelled: called while other threads' tiles are waited for; it may raise to stop.

        Returns:
            (image_seq_len, hidden_size) for each tile, evaluated.

        Raises:
            ValueError: another model's cache.
        """
        digests = [blake2b(tile.tobytes(), digest_size=16).digest() for tile in tiles]
        with self._lock:
            encoder = self.encoder_of(model)
            keys = [(encoder, digest) for digest in digests]
            found = {key: self._features[key] for key in keys if key in self._features}
        new = {key: tile for key, tile in zip(keys, tiles, strict=True) if key not in found}
        if new:
            pixels = np.stack(list(new.values()))
            parts = with_side_streams(lambda: _encoded(model, pixels), len(new), check_cancelled)
            found.update(zip(new, parts, strict=True))
        with self._lock:
            self.num_asked += len(keys)
            self.num_encoded += len(new)
            for key in keys:
                self._keep(key, found[key])
        return [found[key] for key in keys]

    def encoder_of(self, model: SmolVLM) -> int:
        """A number for the encoder whose features those of a model are. Raises ValueError: another model's cache."""
        if self._model is not None and self._model is not model:
            raise ValueError("the feature cache holds features of another model; use one cache for each model")
        self._model = model
        return 0

    def _keep(self, key: tuple[int, bytes], features: mx.array) -> None:
        if key not in self._features:
            self.size_bytes += features.nbytes
        self._features[key] = features
        self._features.move_to_end(key)
        while self.size_bytes > self.max_bytes:
            _, dropped = self._features.popitem(last=False)
            self.size_bytes -= dropped.nbytes


class SharedFeatureCache(FeatureCache):
    """Features of several models within one bound. Those with the same encoder and connector, as adapters of the
    decoder leave them, share theirs. One thread at a time; models are not kept alive."""

    def __init__(self, max_bytes: int):
        super().__init__(max_bytes)
        self._encoders: list[tuple[ref[SmolVLM], int]] = []
        self._numbers = count()  # none is used twice

    def encoder_of(self, model: SmolVLM) -> int:
        """A number for the encoder and connector of a model."""
        self._encoders = [(known, number) for known, number in self._encoders if known() is not None]
        for known, number in self._encoders:
            if known() is model:
                return number
        same = [number for known, number in self._encoders if _has_same_encoder(known(), model)]
        self._encoders.append((ref(model), same[0] if same else next(self._numbers)))
        return self._encoders[-1][1]


def _has_same_encoder(left: SmolVLM | None, right: SmolVLM) -> bool:
    """Whether encoder and connector of two models have the same arrays."""
    if left is None:
        return False
    for name in ("vision_model", "connector"):
        arrays: list[Any] = [tree_flatten(model[name].parameters()) for model in (left, right)]
        if [path for path, _ in arrays[0]] != [path for path, _ in arrays[1]]:
            return False
        if not all(mine is its for (_, mine), (_, its) in zip(*arrays, strict=True)):
            return False
    return True


def _encoded(model: SmolVLM, pixels: np.ndarray) -> list[mx.array]:
    """(num_tiles, tile_size, tile_size, 3) -> the features of each, evaluated."""
    parts = list(mx.split(model.image_features(pixels), len(pixels)))
    mx.eval(parts)
    return parts
