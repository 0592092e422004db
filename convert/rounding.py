"""Rounds the decoder's weights so that its layers' outputs, not the weights themselves, stay close.

GPTQ (Frantar et al., 2022, arXiv:2210.17323): the columns of a weight are rounded one after the other, and what
rounding one changes in the layer's output is made up for by those still to come. How columns go together is measured
on samples with images and text. Scales and biases are those of plain rounding, so the files are like any other.
"""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from ..model.smolvlm import SmolVLM
from .calibration_data import ScoredSample
from .hessians import Hessian, decoder_hessians
from .plan import Plan
from .probes import get_module
from .quantize import LayerFormat, Rounding

DAMPING = 0.01  # share of the mean added to the diagonal: how little to trust what few samples show
_BLOCK = 128  # columns that are made up for at once
_ROWS = 4096  # packed at once: each bit of a code takes a byte meanwhile


class Factorization(NamedTuple):
    """What compensation needs of a Hessian.

    `order` are its columns by falling diagonal, `factor` (in, in) float32 the upper Cholesky factor of the damped
    Hessian's inverse in that order: a row over its diagonal element says how the later columns make up for an error in
    that column, one over that element squared how much error they leave. `trace` is that of the damped Hessian: the
    error without compensation.
    """

    order: np.ndarray
    factor: np.ndarray
    trace: float


class CalibratedRounding(Rounding):
    """Gives the converter the layers that `round_decoder` rounded; others are rounded to nearest."""

    def __init__(self, layers: dict[str, dict[str, mx.array]]):
        self._layers = layers

    def quantize(self, path: str, weight: mx.array, layer_format: LayerFormat) -> dict[str, mx.array]:
        """See `Rounding.quantize`."""
        if path in self._layers:
            return self._layers.pop(path)
        return super().quantize(path, weight, layer_format)


def round_decoder(
    model: SmolVLM, samples: Sequence[ScoredSample], plan: Plan, dtype_of: Callable[[str], mx.Dtype]
) -> CalibratedRounding:
    """Round the decoder's layers and head as the plan has it, first to last.

    Each block sees what comes out of the rounded ones before it, so that it makes up for their errors too. Embeddings
    are rounded to nearest, unless they are the head too: only one row takes part in each output.

    Args:
        model: in full precision; left with rounded weights.
        samples: what the layers' inputs are measured on.
        plan: format of each layer by its path; only affine ones are made up for, the others rounded to nearest.
        dtype_of: type of a layer's scales in the new file, by its path.
    """
    formats = {path: choice for path, choice in plan.items() if choice and choice.mode == "affine"}
    rounded: dict[str, dict[str, mx.array]] = {}
    for hessians in decoder_hessians(model, samples, formats):
        for path, factorization in _factorize_each(hessians).items():
            layer = get_module(model, path)
            rounded[path] = compensate(layer.weight.astype(dtype_of(path)), factorization, formats[path])
            layer.weight = formats[path].dequantize(rounded[path], layer.weight.dtype)
    return CalibratedRounding(rounded)


def compensation_gains(model: SmolVLM, samples: Sequence[ScoredSample], paths: Collection[str]) -> dict[str, float]:
    """Layer path -> share of the output's squared error that rounding with compensation leaves, 0 to 1, by theory: if
    the errors of rounding are independent."""
    gains = {}
    for hessians in decoder_hessians(model, samples, paths):
        for path, factorization in _factorize_each(hessians).items():
            left = 1 / np.square(np.diagonal(factorization.factor), dtype=np.float64)
            gains[path] = float(left.sum() / factorization.trace)
    return gains


def compensate(weight: mx.array, factorization: Factorization, layer_format: LayerFormat) -> dict[str, mx.array]:
    """Round a weight (out, in) to the grid of plain affine rounding, column by column, with compensation.

    Columns go by falling diagonal of the Hessian, so that the last ones, for which nothing makes up, matter least.

    Returns:
        "weight" (codes), "scales" and "biases", as `layer_format.quantize(weight)` does.
    """
    tensors = layer_format.quantize(weight)
    group_size, highest = layer_format.group_size, 2**layer_format.bits - 1
    scales, biases = (np.array(tensors[name].astype(mx.float32).T) for name in ("scales", "biases"))
    order, factor = factorization.order, factorization.factor
    remaining = np.array(weight.astype(mx.float32).T)[order]  # (in, out): a column of the weight is a row here
    codes = np.zeros(remaining.shape, np.uint8)
    for start in range(0, len(order), _BLOCK):
        end = min(start + _BLOCK, len(order))
        errors = np.zeros((end - start, remaining.shape[1]), np.float32)
        for column in range(start, end):
            scale, bias = scales[order[column] // group_size], biases[order[column] // group_size]
            with np.errstate(divide="ignore", invalid="ignore"):  # a group of equal weights has no scale
                code = np.clip(np.nan_to_num(np.rint((remaining[column] - bias) / scale)), 0, highest)
            codes[order[column]] = code
            error = (remaining[column] - (code * scale + bias)) / factor[column, column]
            remaining[column + 1 : end] -= factor[column, column + 1 : end, None] * error
            errors[column - start] = error
        remaining[end:] -= factor[start:end, end:].T @ errors
    return tensors | {"weight": pack(codes.T, layer_format.bits)}


def factorize(hessian: Hessian) -> Factorization:
    """Prepare a Hessian (in, in), of zeros even, for `compensate`.

    Raises:
        ValueError: it is not finite.
    """
    h = np.array(hessian, np.float64)
    if not np.isfinite(h).all():
        raise ValueError("the model computes values that are not finite on the samples; the weights are damaged")
    order = np.argsort(-np.diagonal(h), kind="stable")
    h = h + np.eye(len(h)) * (DAMPING * np.diagonal(h).mean() or 1.0)
    factor = np.linalg.cholesky(np.linalg.inv(h[np.ix_(order, order)])).T.astype(np.float32)
    return Factorization(order, factor, float(np.trace(h)))


def _factorize_each(hessians: dict[str, Hessian]) -> dict[str, Factorization]:
    """Each array once, however many layers share it."""
    distinct = {id(hessian): hessian for hessian in hessians.values()}
    factorizations = {key: factorize(hessian) for key, hessian in distinct.items()}
    return {path: factorizations[id(hessian)] for path, hessian in hessians.items()}


def pack(codes: np.ndarray, bits: int) -> mx.array:
    """Codes (out, in) uint8 -> uint32 words as MLX packs them: a row's codes as one stream, lowest bits first."""
    packed = np.empty((codes.shape[0], codes.shape[1] * bits // 8), np.uint8)
    for start in range(0, len(codes), _ROWS):
        rows = codes[start : start + _ROWS]
        stream = (rows[..., None] >> np.arange(bits, dtype=np.uint8)) & 1
        packed[start : start + _ROWS] = np.packbits(stream.reshape(len(rows), -1), axis=-1, bitorder="little")
    return mx.array(packed.view("<u4"))
