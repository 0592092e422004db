"""Image features on disk, for as long as the encoder and the connector stay what they are.

They are found by the pixels and the weights that they were computed from, so a file is never the wrong one, and several
runs may share a folder. Once all of a run are stored, the weights of the encoder need not stay in memory.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any
from uuid import uuid4

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from ...command_line.standard_streams import say
from ...model.smolvlm import SmolVLM
from ..dataset.examples import Example
from ..run_folder import save_arrays
from .frozen_encoder import frozen_features

_FEATURES, _DIGEST = "features", "digest"
_KEPT_FREE_BYTES = 10**9  # of the disk, for the states of the run


class StoredFeatures:
    """The image features of examples: computed once, then read.

    Attributes:
        num_computed: of how many examples the encoder was asked.
    """

    def __init__(self, model: SmolVLM, folder: Path | None, reload: Callable[[], SmolVLM] | None = None):
        """
        Args:
            model: whose encoder and connector are asked.
            folder: where features are kept; None keeps nothing.
            reload: gives the model with lazy weights, so that those of the encoder can be released; None keeps them.
        """
        self._model = model
        self._folder = folder
        self._reload = reload
        self._is_released = False
        self._weights = _weights_digest(model) if folder is not None else b""
        self._draft = f".{uuid4().hex}.safetensors"  # of this process; it gets its name when it is whole
        self._keys: dict[int, str] = {}  # of examples whose pixels were seen in this run
        self.num_computed = 0

    def open(self, number: int, example: Example) -> np.ndarray | None:
        """The tiles of an example, unless its features are stored, as far as one can see. For any thread.

        Raises:
            RowError: an image has changed, or cannot be read.
        """
        folder, key = self._folder, self._keys.get(number)
        return None if folder and key and _place(folder, key).is_file() else example.tiles()

    def of(self, wanted: Sequence[tuple[int, Example, np.ndarray | None]]) -> list[mx.array]:
        """Of examples with tiles, each (num_image_tokens, hidden_size).

        Args:
            wanted: the number of each example, itself, and what `open` gave; None will do.

        Raises:
            RowError: an image has changed, or cannot be read.
        """
        found: dict[str, mx.array] = {}
        missing: dict[str, np.ndarray] = {}
        keys = []
        for number, example, tiles in wanted:
            key = self._keys.get(number)
            if key is None or not self._is_there(key, example, found):
                tiles = example.tiles() if tiles is None else tiles
                key = self._keys[number] = self._key(number, tiles)
                if key not in missing and not self._is_there(key, example, found):
                    missing[key] = tiles
            keys.append(key)
        if missing:
            for key, features in zip(missing, self._compute(list(missing.values())), strict=True):
                found[key] = features
                self._write(key, features)
        return [found[key] for key in keys]

    @property
    def can_release(self) -> bool:
        """Whether the encoder's weights can be released: its features are kept, and they can be read again."""
        return self._folder is not None and self._reload is not None

    def release_encoder(self) -> None:
        """Let the encoder's weights take no memory until somebody uses them, if that is possible."""
        self._is_released = self.can_release
        if self.can_release and self._reload is not None:
            fresh = self._reload()
            self._model.vision_model, self._model.connector = fresh.vision_model, fresh.connector
            mx.clear_cache()

    @contextmanager
    def encoder(self) -> Iterator[None]:
        """Within, the encoder's weights are in memory, for any thread."""
        mx.eval(self._model.vision_model.parameters(), self._model.connector.parameters())
        try:
            yield
        finally:
            if self._is_released:
                self.release_encoder()

    def _is_there(self, key: str, example: Example, found: dict[str, mx.array]) -> bool:
        """Whether features are found, or can be read: then they are put to those that are."""
        if key not in found and (features := self._read(key, example.num_tiles)) is not None:
            found[key] = features
        return key in found

    def bytes_of(self, examples: Sequence[Example]) -> int:
        """How much disk the features of all examples take, if no image is there twice; 0 if none are kept."""
        if self._folder is None:
            return 0
        size = self._model.config.text.hidden_size * self._model.language_model.norm.weight.dtype.size
        scale = self._model.config.scale_factor**2
        seq_len = self._model.config.vision.patches_per_side**2 // scale
        return sum(example.num_tiles for example in examples) * seq_len * size

    def _compute(self, tiles: Sequence[np.ndarray]) -> list[mx.array]:
        """Of the tiles of some examples, all together."""
        self.num_computed += len(tiles)
        with self.encoder():
            features = frozen_features(self._model, np.concatenate(tiles))
        ends = np.cumsum([len(own) for own in tiles])[:-1].tolist()
        split = [part.reshape(-1, part.shape[-1]) for part in mx.split(features, ends)]
        mx.eval(split)
        return split

    def _key(self, number: int, tiles: np.ndarray) -> str:
        if self._folder is None:
            return str(number)
        return blake2b(self._weights + np.ascontiguousarray(tiles).tobytes(), digest_size=20).hexdigest()

    def _read(self, key: str, num_tiles: int) -> mx.array | None:
        """Features that are there and whole."""
        if self._folder is None:
            return None
        try:
            found: Any = mx.load(str(_place(self._folder, key)), return_metadata=True)
            features: mx.array = found[0][_FEATURES]
            mx.eval(features)
        except (RuntimeError, OSError, KeyError, ValueError):
            return None
        if found[1].get(_DIGEST) != _digest(features):  # it was not on the disk yet when the machine failed
            return None
        text = self._model.config.text.hidden_size
        return features if features.shape[0] % num_tiles == 0 and features.shape[1:] == (text,) else None

    def _write(self, key: str, features: mx.array) -> None:
        """Keep features; on a full disk they are computed each time.

        There may be many files, so none waits for the disk, and none looks at the others.
        """
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self._folder).free < features.nbytes + _KEPT_FREE_BYTES:
                raise OSError(f"less than {_KEPT_FREE_BYTES / 1e9:g} GB would be left in {self._folder}")
            draft = self._folder / self._draft
            save_arrays(draft, {_FEATURES: features}, {_DIGEST: _digest(features)})
            draft.replace(_place(self._folder, key))
        except OSError as error:
            say(f"note: image features cannot be kept any more ({error}); they are computed in each epoch")
            self._folder = None


def _place(folder: Path, key: str) -> Path:
    return folder / f"{key}.safetensors"


def _weights_digest(model: SmolVLM) -> bytes:
    """Of everything that image features depend on but the pixels."""
    digest = blake2b(digest_size=16)
    parameters: Any = tree_flatten(
        {"vision": model.vision_model.parameters(), "connector": model.connector.parameters()}
    )
    for name, array in sorted(parameters):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(_bytes_of(array))
    return digest.digest()


def _digest(features: mx.array) -> str:
    return blake2b(_bytes_of(features), digest_size=16).hexdigest()


def _bytes_of(array: mx.array) -> bytes:
    carriers = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32}  # numpy knows no bfloat16
    return np.array(array.reshape(-1).view(carriers[array.dtype.size])).tobytes()
