"""How one layer is quantized: its format, and the rounding of its weight."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

# mode -> (bits, group sizes) that MLX has kernels for
FORMATS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "affine": ((2, 3, 4, 5, 6, 8), (32, 64, 128)),
    "mxfp4": ((4,), (32,)),
    "mxfp8": ((8,), (32,)),
    "nvfp4": ((4,), (16,)),
}
_CHUNK_BYTES = 8 * 1024**2
READERS_MULTIPLE = 64  # mlx-vlm takes a matrix of another size for one that is not quantized, and fails


@dataclass(frozen=True)
class LayerFormat:
    """`bits` per weight in groups of `group_size` along the last axis; `mode` as MLX names it.

    Raises:
        ValueError: a combination that MLX has no kernels for.
    """

    bits: int = 4
    group_size: int = 64
    mode: str = "affine"

    def __post_init__(self) -> None:
        if self.mode not in FORMATS:
            raise ValueError(f"q-mode is {self.mode!r}, expected one of {', '.join(FORMATS)}")
        bits, group_sizes = FORMATS[self.mode]
        if self.bits not in bits:
            raise ValueError(f"q-bits is {self.bits}, {self.mode} has {' '.join(map(str, bits))}")
        if self.group_size not in group_sizes:
            raise ValueError(f"q-group-size is {self.group_size}, {self.mode} has {' '.join(map(str, group_sizes))}")

    def __str__(self) -> str:
        bits = f"{self.bits} bits" if self.mode == "affine" else self.mode
        return f"{bits} in groups of {self.group_size}"

    def entry(self) -> dict[str, Any]:
        """This format as `config.json` writes it."""
        return {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}

    def obstacle(self, shape: Sequence[int]) -> str | None:
        """Why a weight of this shape, (out, in), cannot be quantized so, or None if it can."""
        if shape[-1] % self.group_size:
            return f"its width {shape[-1]} is no multiple of the group size {self.group_size}"
        size = shape[0] * shape[-1]
        if size % READERS_MULTIPLE:
            return f"its {size} weights are no multiple of {READERS_MULTIPLE}, as other readers expect"
        return None

    def quantize(self, weight: mx.array) -> dict[str, mx.array]:
        """A weight (out, in) rounded to nearest -> "weight" (uint32 codes), "scales" and, in affine mode, "biases".

        Lazy, as all of MLX: shapes and dtypes are known without a computation.
        """
        codes, scales, *biases = mx.quantize(weight, self.group_size, self.bits, mode=self.mode)
        return {"weight": codes, "scales": scales} | ({"biases": biases[0]} if biases else {})

    def dequantize(self, tensors: dict[str, mx.array], dtype: mx.Dtype) -> mx.array:
        """The weight (out, in) that `quantize`'s tensors stand for."""
        codes, scales, biases = tensors["weight"], tensors["scales"], tensors.get("biases")
        return mx.dequantize(codes, scales, biases, self.group_size, self.bits, mode=self.mode, dtype=dtype)


def parse_format(text: str, group_size: int = 64) -> LayerFormat | None:
    """A format as command lines name it: "none", bits of the affine mode ("4"), or another mode ("mxfp4").

    `group_size` is that of the affine mode; the others have one each.
    """
    if text == "none":
        return None
    if text in FORMATS and text != "affine":
        bits, group_sizes = FORMATS[text]
        return LayerFormat(bits[0], group_sizes[0], text)
    names = ", ".join(mode for mode in FORMATS if mode != "affine")
    if not text.isdecimal():
        raise ValueError(f"{text!r} is no format; expected a number of bits, {names} or none")
    return LayerFormat(int(text), group_size)


class Rounding:
    """Transforms and quantizes weights, rounding to nearest; a subclass may round better.

    The converter calls each method at most once per tensor, in no promised order, and holds no tensor after that.
    """

    def transform(self, name: str, array: mx.array) -> mx.array:
        """A tensor of the source, by its MLX-community name (`language_model.norm.weight`), before it is cast and
        quantized; returns one of the same shape and dtype. Here: as it is."""
        return array

    def quantize(self, path: str, weight: mx.array, layer_format: LayerFormat) -> dict[str, mx.array]:
        """The weight of the layer `path` as "weight", "scales" and, in affine mode, "biases", with the shapes and
        dtypes of `layer_format.quantize(weight)`. Here: rounded to nearest."""
        rows = max(1, _CHUNK_BYTES // weight[0].nbytes)  # groups lie within rows, and some modes need much room
        chunks = []
        for start in range(0, weight.shape[0], rows):
            chunks.append(layer_format.quantize(weight[start : start + rows]))
            mx.eval(chunks[-1])
        return {name: mx.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
