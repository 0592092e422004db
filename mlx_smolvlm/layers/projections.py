"""Products with the decoder's weight matrices, each in as few and as quick kernels as the device allows."""

from collections.abc import Iterable
from copy import copy
from itertools import groupby
from typing import Any

import mlx.core as mx
import mlx.nn as nn

ROWS_TO_DEQUANTIZE = 4  # on a CPU, from as many rows on, a quantized product costs more than unpacking the weights


def fuse(layers: Iterable[nn.Module]) -> list[nn.Module]:
    """Join neighbouring linear layers of one input that are stored alike, so that one product does for them.

    Rows are concatenated: weights, or codes, scales and biases. Layers of another type, with an additive bias, or
    quantized otherwise than their neighbour (recipes give some layers more bits) stay as they are.

    Returns:
        Layers whose outputs, concatenated along the last axis, are those of `layers`.
    """
    groups = (list(group) for _, group in groupby(layers, _storage))
    return [with_columns(_joined(group) if len(group) > 1 else group[0]) for group in groups]


def with_columns(layer: nn.Module) -> nn.Module:
    """Let a plain layer keep the view of its weights that a product needs, so that no step has to make it anew."""
    if type(layer) is nn.Linear and "bias" not in layer:
        layer._columns = layer.weight.T
        mx.eval(layer._columns)
    return layer


def _storage(layer: nn.Module) -> tuple[Any, ...]:
    """Equal for two layers if their rows can stand in one matrix."""
    if "bias" not in layer and type(layer) is nn.Linear:
        return (nn.Linear, layer.weight.dtype)
    if "bias" not in layer and type(layer) is nn.QuantizedLinear:
        return (nn.QuantizedLinear, layer.group_size, layer.bits, layer.mode, layer.scales.dtype)
    return (id(layer),)


def _joined(layers: list[nn.Module]) -> nn.Module:
    joined = copy(layers[0])  # its group size, bits and mode
    for name in ("weight", "scales", "biases"):
        if name in joined:
            joined[name] = mx.concatenate([layer[name] for layer in layers])
    return joined


def project(layer: nn.Module, x: mx.array) -> mx.array:
    """layer(x), (1, num_tokens, in) -> (1, num_tokens, out).

    Metal's quantized products are quick for any number of rows. The CPU's unpack the weights anew for every row.
    """
    columns = layer.get("_columns")
    if columns is not None:
        return x @ columns
    if (
        type(layer) is nn.QuantizedLinear
        and x.shape[-2] >= ROWS_TO_DEQUANTIZE
        and "bias" not in layer
        and mx.default_device() == mx.cpu
    ):
        weight = mx.dequantize(
            layer.weight, layer.scales, layer.get("biases"), layer.group_size, layer.bits, layer.mode, dtype=x.dtype
        )
        return x @ weight.T
    return layer(x)


def project_onto(layer: nn.Module, x: mx.array, residual: mx.array) -> mx.array:
    """residual + layer(x), in one kernel where the weights are not quantized."""
    columns = layer.get("_columns")
    if columns is not None:
        return mx.addmm(residual, x, columns)
    if type(layer) is nn.Linear and "bias" not in layer:
        return mx.addmm(residual, x, layer["weight"].T)
    return residual + project(layer, x)
