"""A checkpoint to convert: its tensors one at a time, whatever layout and quantization they are stored in."""

import math
from pathlib import Path

import mlx.core as mx

from ..api.finding import find_checkpoint
from ..api.loading import open_checkpoint
from ..model.checkpoint_folder import check_folder
from ..model.config import ModelConfig, read_model_config
from ..processor.processor import load_processor
from .plan import Plan, plan_from_entry

_NORM = "language_model.norm.weight"  # never quantized, in any file


class Source:
    """An opened checkpoint; nothing but headers has been read. `formats` are those of its quantized layers.

    `tensors` are lazy, by MLX-community name. Reading one lets it go here, so that its memory can follow.
    """

    def __init__(self, folder: Path, config: ModelConfig, tensors: dict[str, mx.array], formats: Plan):
        self.folder, self.config, self.formats = folder, config, formats
        self._tensors = tensors
        self._dtypes = {name: array.dtype for name, array in tensors.items()}
        self.shapes: dict[str, tuple[int, ...]] = {}
        """Shape of every tensor as `read` returns it: that of a quantized layer's weight, not of its codes."""
        for name, array in tensors.items():
            path, _, kind = name.rpartition(".")
            layer_format = formats.get(path)
            if layer_format is None or kind == "bias":
                self.shapes[name] = tuple(array.shape)
            elif kind == "weight":
                self.shapes[name] = (array.shape[0], array.shape[1] * 32 // layer_format.bits)

    def as_stored(self) -> "Source":
        """The same checkpoint with codes and scales as tensors like any other, to be copied."""
        return Source(self.folder, self.config, self._tensors, {})

    @property
    def layers(self) -> dict[str, tuple[int, ...]]:
        """Path -> shape of its weight, (out, in), of every layer that can be quantized: linear ones and embeddings."""
        return {
            name.removesuffix(".weight"): shape
            for name, shape in self.shapes.items()
            if name.endswith(".weight") and len(shape) == 2
        }

    @property
    def num_weights(self) -> int:
        """Weights of the model; codes count as what they stand for, scales not at all."""
        return sum(map(math.prod, self.shapes.values()))

    def dtype(self, name: str) -> mx.Dtype:
        """The type that `read` returns: of a quantized layer that of its scales, or of the norms where those are
        codes themselves."""
        path = name.removesuffix(".weight")
        if not name.endswith(".weight") or path not in self.formats:
            return self._dtypes[name]
        scales = self._dtypes[f"{path}.scales"]
        return scales if mx.issubdtype(scales, mx.floating) else self._dtypes[_NORM]

    def read(self, name: str) -> mx.array:
        """A tensor, lazily, dequantized where it is stored quantized. Each can be read once."""
        path = name.removesuffix(".weight")
        layer_format = self.formats.get(path) if name.endswith(".weight") else None
        if layer_format is None:
            return self._tensors.pop(name)
        stored = {kind: self._tensors.pop(f"{path}.{kind}", None) for kind in ("weight", "scales", "biases")}
        present = {kind: array for kind, array in stored.items() if array is not None}
        return layer_format.dequantize(present, self.dtype(name))


def open_source(path_or_hub_id: str | Path, *, revision: str | None = None) -> Source:
    """Open a folder or a Hub id, and check that a model can be built from it.

    Raises:
        FileNotFoundError: no such checkpoint, or files are missing from it.
        ValueError: damaged or contradictory files.
        ConnectionError: the Hub cannot be reached or refuses.
    """
    folder = find_checkpoint(path_or_hub_id, revision=revision)
    check_folder(folder)
    config = read_model_config(folder)
    load_processor(folder, config)  # a folder that could not be used is refused before anything is written
    _, tensors = open_checkpoint(folder, config)
    quantized = [name.removesuffix(".scales") for name in tensors if name.endswith(".scales")]
    try:
        formats = plan_from_entry(config.quantization, quantized)
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'}, quantization: {error}") from None
    return Source(folder, config, tensors, formats)
