"""Rounds the decoder's weights so that its layers' outputs, not the weights themselves, stay close.

GPTQ (Frantar et al., 2022, arXiv:2210.17323): the columns of a weight are rounded one after the other, and what rounding
one changes in the layer's output is made up for by those still to come. How columns go together is measured on samples
with pictures and text. Scales and biases are those of plain rounding, so the files are like any other.
"""

from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

from ..cache import KVCache
from ..model import SmolVLM
from .calibration_data import ScoredSample, embed
from .plan import Plan
from .probes import get_module, probed
from .quantize import LayerFormat, Rounding

DAMPING = 0.01  # share of the mean added to the diagonal: how little to trust what few samples show
_BLOCK = 128  # columns that are made up for at once

Hessian = mx.array
"""Sum over tokens of x x^T for the inputs x of a layer, (in, in) float32."""


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
    model: SmolVLM,
    samples: Sequence[ScoredSample],
    plan: Plan,
    dtype_of: Callable[[str], mx.Dtype],
    progress: Callable[[str], None] = lambda _: None,
) -> CalibratedRounding:
    """Round the decoder's layers and head as the plan has it, first to last.

    Each layer sees what comes out of the rounded ones before it, so that it makes up for their errors too. Needs memory
    for the model, the samples' hidden states and one layer's statistics.

    Args:
        model: in full precision; left with rounded weights.
        samples: what the layers' inputs are measured on.
        plan: format of each layer by its path; only affine ones are made up for, the others rounded to nearest.
        dtype_of: type of a layer's scales in the new file, by its path.
        progress: called with the path of each block before it is rounded.
    """
    rounded: dict[str, dict[str, mx.array]] = {}
    hidden = []
    for sample in samples:
        hidden.append(embed(model, sample))
        mx.eval(hidden[-1])

    def run(path: str, block: Callable[[mx.array], mx.array]) -> None:
        progress(path)
        statistics = _Hessians(plan)
        with probed(model, statistics.observe, under=path):
            for x in hidden:
                mx.eval(block(x))
        for layer_path, hessian in statistics.by_path.items():
            layer, layer_format = get_module(model, layer_path), plan[layer_path]
            assert layer_format is not None
            rounded[layer_path] = compensate(layer.weight.astype(dtype_of(layer_path)), hessian, layer_format)
            layer.weight = layer_format.dequantize(rounded[layer_path], layer.weight.dtype)
        for i, x in enumerate(hidden):
            hidden[i] = block(x)
            mx.eval(hidden[i])

    language = model.language_model
    for number, layer in enumerate(language.layers):
        run(f"language_model.layers.{number}.", lambda x, layer=layer: layer(x, KVCache()))
    for i, sample in enumerate(samples):  # what follows a picture's tokens is never asked for
        text = np.flatnonzero(np.array(sample.input_ids) != model.config.image_token_id)
        hidden[i] = language.norm(hidden[i][:, mx.array(text)])
    run("language_model.embed_tokens" if model.config.tie_word_embeddings else "language_model.lm_head", language.logits)
    return CalibratedRounding(rounded)


class _Hessians:
    """Adds up x x^T of the layers that a plan quantizes; layers with the same input share one."""

    def __init__(self, plan: Plan):
        self._plan = plan
        self.by_path: dict[str, Hessian] = {}
        self._last: tuple[mx.array, Hessian] | None = None

    def observe(self, path: str, layer: object, method: str, x: mx.array, y: mx.array) -> mx.array:
        layer_format = self._plan.get(path)
        if layer_format is not None and layer_format.mode == "affine":
            rows = x.reshape(-1, x.shape[-1]).astype(mx.float32)
            self.by_path[path] = self.by_path.get(path, 0) + rows.T @ rows
            mx.eval(self.by_path[path])
        return y


def compensate(weight: mx.array, hessian: Hessian, layer_format: LayerFormat) -> dict[str, mx.array]:
    """Round a weight (out, in) to the grid of plain affine rounding, column by column, with compensation.

    Columns go by falling weight in the Hessian, so that the last ones, for which nothing makes up, matter least.

    Returns:
        "weight" (codes), "scales" and "biases", as `layer_format.quantize(weight)` does.
    """
    tensors = layer_format.quantize(weight)
    group_size, highest = layer_format.group_size, 2**layer_format.bits - 1
    scales, biases = (np.array(tensors[name].astype(mx.float32)) for name in ("scales", "biases"))
    h = np.array(hessian, np.float64)
    diagonal = np.diagonal(h)
    h = h + np.eye(len(h)) * (DAMPING * diagonal.mean() or 1.0)
    order = np.argsort(-diagonal, kind="stable")
    factor = np.linalg.cholesky(np.linalg.inv(h[np.ix_(order, order)])).T.astype(np.float32)
    remaining = np.array(weight.astype(mx.float32))[:, order]
    codes = np.zeros(remaining.shape, np.uint8)
    for start in range(0, len(order), _BLOCK):
        end = min(start + _BLOCK, len(order))
        errors = np.zeros((len(remaining), end - start), np.float32)
        for column in range(start, end):
            group = order[column] // group_size
            scale, bias, wanted = scales[:, group], biases[:, group], remaining[:, column]
            with np.errstate(divide="ignore", invalid="ignore"):  # a group of equal weights has no scale
                code = np.clip(np.nan_to_num(np.rint((wanted - bias) / scale)), 0, highest)
            codes[:, order[column]] = code
            errors[:, column - start] = (wanted - (code * scale + bias)) / factor[column, column]
            remaining[:, column + 1 : end] -= np.outer(errors[:, column - start], factor[column, column + 1 : end])
        remaining[:, end:] -= errors @ factor[start:end, end:]
    return tensors | {"weight": pack(codes, layer_format.bits)}


def pack(codes: np.ndarray, bits: int) -> mx.array:
    """Codes (out, in) uint8 -> uint32 words as MLX packs them: a row's codes as one stream, lowest bits first."""
    stream = (codes[..., None] >> np.arange(bits, dtype=np.uint8)) & 1
    packed = np.packbits(stream.reshape(len(codes), -1), axis=-1, bitorder="little")
    return mx.array(np.ascontiguousarray(packed).view("<u4"))
