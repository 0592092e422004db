"""Products with the decoder's weight matrices, each in as few and as quick kernels as the device allows.

The functions here look at a layer once. What they return holds its arrays, so it is for one step, unless somebody makes
sure that the layer stays what it was (see `fusing.py`).
"""

from collections.abc import Callable, Sequence
from functools import partial

import mlx.core as mx
import mlx.nn as nn

from .adapted import AdaptedLinear

Product = Callable[[mx.array], mx.array]
ProductPair = Callable[[mx.array], Sequence[mx.array]]
ProductOnto = Callable[[mx.array, mx.array], mx.array]

ROWS_TO_DEQUANTIZE = 4  # on a CPU, from as many rows on, a quantized product costs more than unpacking the weights


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer is one matrix in full precision, without an additive bias."""
    return type(layer) is nn.Linear and "bias" not in layer


def is_quantized(layer: nn.Module) -> bool:
    """Whether a layer is one quantized matrix, without an additive bias."""
    return type(layer) is nn.QuantizedLinear and "bias" not in layer


def product(layers: Sequence[nn.Module]) -> Product:
    """What maps x, (1, num_tokens, in), to the outputs of `layers`, concatenated: (1, num_tokens, out)."""
    if len(layers) == 1:
        return _product(layers[0])
    each = [_product(layer) for layer in layers]
    return lambda x: mx.concatenate([one(x) for one in each], -1)


def product_pair(layers: Sequence[nn.Module]) -> ProductPair:
    """What maps x, (1, num_tokens, in), to the two halves of `product(layers)`, (1, num_tokens, out / 2) each.

    There are two layers of as many outputs, or one that joins them.
    """
    if len(layers) == 1:
        multiply = _product(layers[0])
        return lambda x: mx.split(multiply(x), 2, -1)  # type: ignore[return-value]
    each = [_product(layer) for layer in layers]
    return lambda x: [one(x) for one in each]


def product_onto(layer: nn.Module) -> ProductOnto:
    """What maps x and a residual to residual + layer(x), in one kernel where the weights are not quantized."""
    if is_plain(layer):
        columns = _columns(layer)
        return lambda x, residual: mx.addmm(residual, x, columns)
    if type(layer) is AdaptedLinear and layer.gain is None:
        base_onto, a, b = product_onto(layer["base"]), layer["lora_a"], layer["lora_b"]
        return lambda x, residual: mx.addmm(base_onto(x, residual), x @ a, b)
    multiply = _product(layer)
    return lambda x, residual: residual + multiply(x)


def _product(layer: nn.Module) -> Product:
    if is_plain(layer):
        columns = _columns(layer)
        return lambda x: x @ columns
    if is_quantized(layer):
        stored = layer["weight"], layer["scales"], layer.get("biases")
        return partial(_quantized_product, stored, (layer.group_size, layer.bits, layer.mode))
    if type(layer) is AdaptedLinear and "bias" not in layer["base"]:
        return _adapted_product(layer)
    return layer


def _adapted_product(layer: AdaptedLinear) -> Product:
    base, a, b, gain = _product(layer["base"]), layer["lora_a"], layer["lora_b"], layer.gain
    if gain is None:
        return lambda x: mx.addmm(base(x), x @ a, b)
    return lambda x: mx.addmm(base(x) * gain, x @ a, b)


def _quantized_product(
    stored: tuple[mx.array, mx.array, mx.array | None], storage: tuple[int, int, str], x: mx.array
) -> mx.array:
    """Metal's quantized products are quick for any number of rows. The CPU's unpack the weights again for every row."""
    if x.shape[-2] >= ROWS_TO_DEQUANTIZE and mx.default_device() == mx.cpu:
        return x @ mx.dequantize(*stored, *storage, dtype=x.dtype).T
    return mx.quantized_matmul(x, *stored, True, *storage)


def _columns(layer: nn.Module) -> mx.array:
    """The transposed weights: those kept in the layer (see `keep_columns`), or a view made for this step."""
    kept: mx.array | None = layer.get("_columns")
    return layer["weight"].T if kept is None else kept


def keep_columns(layer: nn.Module) -> nn.Module:
    """Cache the transposed weights of a plain layer, evaluated so that any thread can use them; returns the layer.

    They do not follow the weights: this is for copies of layers.
    """
    if is_plain(layer):
        layer["_columns"] = layer["weight"].T
        mx.eval(layer["_columns"])
    return layer
