"""Products with the decoder's weight matrices, each in as few and as quick kernels as the device allows."""

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from functools import partial
from itertools import groupby
from typing import Any

import mlx.core as mx
import mlx.nn as nn

Product = Callable[[mx.array], mx.array]
ProductPair = Callable[[mx.array], Sequence[mx.array]]
ProductOnto = Callable[[mx.array, mx.array], mx.array]

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
    """Let a plain layer keep the view of its weights that products take: only what is evaluated can change threads."""
    if _is_plain(layer):
        layer._columns = layer.weight.T
        mx.eval(layer._columns)
    return layer


def _storage(layer: nn.Module) -> tuple[Any, ...]:
    """Equal for two layers if their rows can stand in one matrix."""
    if _is_plain(layer):
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


def product(layers: Sequence[nn.Module]) -> Product:
    """What maps x, (1, num_tokens, in), to the outputs of `layers`, concatenated: (1, num_tokens, out).

    It holds all that each call would otherwise look up or make anew, so it does not see a layer change.
    """
    if len(layers) == 1:
        return _product(layers[0])
    each = [_product(layer) for layer in layers]
    return lambda x: mx.concatenate([one(x) for one in each], axis=-1)


def product_pair(layers: Sequence[nn.Module]) -> ProductPair:
    """What maps x, (1, num_tokens, in), to the two halves of `product(layers)`, (1, num_tokens, out / 2) each.

    There are two layers of as many outputs, or the one that `fuse` makes of them.
    """
    if len(layers) == 1:
        multiply = _product(layers[0])
        return lambda x: mx.split(multiply(x), 2, axis=-1)  # type: ignore[return-value]
    each = [_product(layer) for layer in layers]
    return lambda x: [one(x) for one in each]


def product_onto(layer: nn.Module) -> ProductOnto:
    """What maps x and a residual to residual + layer(x), in one kernel where the weights are not quantized."""
    if _is_plain(layer):
        columns = _columns(layer)
        return lambda x, residual: mx.addmm(residual, x, columns)
    multiply = _product(layer)
    return lambda x, residual: residual + multiply(x)


def _product(layer: nn.Module) -> Product:
    if _is_plain(layer):
        columns = _columns(layer)
        return lambda x: x @ columns
    if type(layer) is nn.QuantizedLinear and "bias" not in layer:
        return partial(_quantized_product, dict(layer), (layer.group_size, layer.bits, layer.mode))
    return layer


def _quantized_product(arrays: dict[str, mx.array], storage: tuple[int, int, str], x: mx.array) -> mx.array:
    """Metal's quantized products are quick for any number of rows. The CPU's unpack the weights anew for every row."""
    stored = arrays["weight"], arrays["scales"], arrays.get("biases")
    if x.shape[-2] >= ROWS_TO_DEQUANTIZE and mx.default_device() == mx.cpu:
        return x @ mx.dequantize(*stored, *storage, dtype=x.dtype).T
    return mx.quantized_matmul(x, *stored, True, *storage)


def _is_plain(layer: nn.Module) -> bool:
    return type(layer) is nn.Linear and "bias" not in layer


def _columns(layer: nn.Module) -> mx.array:
    kept = layer.get("_columns")
    return layer.weight.T if kept is None else kept
