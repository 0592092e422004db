"""Which weights are quantized, and how."""

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
READERS_MULTIPLE = 64  # mlx-vlm takes a matrix of another size for one that is not quantized, and fails
_QUANTIZED_PART = "language_model."  # encoder and connector are small, and pictures suffer first


@dataclass(frozen=True)
class QuantizationOptions:
    """`bits` per weight in groups of `group_size` along the last axis; `mode` as MLX names it."""

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

    def entry(self) -> dict[str, Any]:
        """The value of `quantization` in `config.json`."""
        return {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}

    def is_candidate(self, name: str, weight: mx.array) -> bool:
        """Whether a tensor is a matrix of the decoder: a linear layer, the embeddings or the head."""
        return name.startswith(_QUANTIZED_PART) and name.endswith(".weight") and weight.ndim == 2

    def obstacle(self, weight: mx.array) -> str | None:
        """Why a matrix cannot be quantized so, or None if it can."""
        if weight.shape[-1] % self.group_size:
            return f"its width {weight.shape[-1]} is no multiple of the group size {self.group_size}"
        if weight.size % READERS_MULTIPLE:
            return f"its {weight.size} weights are no multiple of {READERS_MULTIPLE}, as other readers expect"
        return None

    def quantize(self, name: str, weight: mx.array) -> dict[str, mx.array]:
        """A layer's weight -> `weight` (uint32 codes), `scales` and, in affine mode, `biases`, by their names."""
        path = name.removesuffix(".weight")
        codes, scales, *biases = mx.quantize(weight, self.group_size, self.bits, mode=self.mode)
        tensors = {f"{path}.weight": codes, f"{path}.scales": scales}
        if biases:
            tensors[f"{path}.biases"] = biases[0]
        return tensors
