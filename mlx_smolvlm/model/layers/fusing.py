"""Joins layers that share an input, so that one product does for them, for as long as they stay what they are.

A fused block keeps its layers in their places: under the names of the files, with weights that are views of the joined
matrix. So layers can be replaced, quantized, adapted and trained as in any other tree. What was joined is compared with
the layers before each use, by identity, which costs little. If a layer, an array of it, or what an array holds is no
longer the same, the joined matrix is dropped and the layers themselves are used. Under `mx.grad` and the like, MLX puts
other arrays in their places, so gradients are right as well.
"""

from collections.abc import Callable, Sequence
from copy import copy
from itertools import accumulate, groupby
from typing import Any, ClassVar, Generic, TypeVar

import mlx.core as mx
import mlx.nn as nn

from .adapted import AdaptedLinear
from .projections import is_plain, is_quantized, keep_columns

Products = TypeVar("Products")

_MARK = "_fused"  # an item of each fused layer, which distinguishes it from any other with the same arrays


class IndexedModule(nn.Module):
    """A module whose parts can be read as items, which is quicker than as attributes, whatever they are."""

    def __missing__(self, name: str) -> Any:
        """`module[name]` of a part that is no `nn.Module`, which MLX stores as an attribute rather than an item."""
        return getattr(self, name)


class Fusible(IndexedModule, Generic[Products]):
    """A block with layers that share its input and one layer that gives its output."""

    INPUT_LAYERS: ClassVar[tuple[str, ...]]
    OUTPUT_LAYER: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self._find: Callable[[Any], Products] = _separate
        self._joints: Joints | None = None

    @staticmethod
    def products(inputs: Sequence[nn.Module], output: nn.Module) -> Products:
        """The block's products with these layers; neighbours among `inputs` may be joined to one."""
        raise NotImplementedError

    @property
    def is_fused(self) -> bool:
        """Whether what `fuse` prepared is in use: it was called, and no layer has changed since."""
        self._find(self)
        return self._find is not _separate

    def fuse(self) -> None:
        """Join the input layers (see `join`) and keep what every product needs; again, if layers have changed.

        This is for speed alone. A block with a layer that is no `nn.Module` is left as it is.
        """
        layers = [self[name] for name in (*self.INPUT_LAYERS, self.OUTPUT_LAYER)]
        known = self._joints
        if not self.is_fused and all(isinstance(layer, nn.Module) for layer in layers):
            joints = Joints(known)
            products = self.products(join(layers[:-1], joints), *join(layers[-1:], joints))
            self._find, self._joints = _kept(self, products, joints.changes), joints


def _separate(block: Fusible[Products]) -> Products:
    """The products with the layers that the block has at this moment."""
    return block.products([block[name] for name in block.INPUT_LAYERS], block[block.OUTPUT_LAYER])


def _kept(block: Fusible[Products], products: Products, changes: list[str]) -> Callable[[Any], Products]:
    """What finds `products` for as long as the block has the layers, and these the arrays, that they have now.

    It runs twice per decoder layer and token, so the comparison is left to Python's dictionaries, which take identical
    values for equal without a call. Two different arrays are compared by MLX; as they have more than one element, the
    result has no truth value, which is an error. Two layers with the same arrays are distinguished by their marks.
    """
    names = (*block.INPUT_LAYERS, block.OUTPUT_LAYER)
    for name in names:
        block[name][_MARK] = object()
    held = {key: _held(value) if key in names else value for key, value in block.items()}

    def find(block: Fusible[Products]) -> Products:
        try:
            if not changes and held == block:
                return products
        except (ValueError, TypeError):  # different arrays
            pass
        block._find, block._joints = _separate, None
        return _separate(block)

    return find


def _held(layer: nn.Module) -> Any:
    """What `_kept` compares a layer with: the layer itself, or where it was joined, copies of its dictionaries."""
    if not _is_matrix(layer):
        return layer
    return dict(layer) | ({"base": dict(layer["base"])} if type(layer) is AdaptedLinear else {})


class Joints:
    """The joined matrices of one block, with the arrays that are views of them.

    Attributes:
        changes: where these views note it if they are changed in place.
    """

    def __init__(self, known: "Joints | None" = None):
        """`known` are those of the same layers before something was put around them."""
        self.changes: list[str] = []
        self._known = [] if known is None or known.changes else known._joined
        self._joined: list[tuple[list[dict[str, mx.array]], nn.Module]] = []

    def __deepcopy__(self, memo: Any) -> None:
        """Views of a copied layer are no views of a joined matrix."""

    def joined(self, layers: list[nn.Module]) -> nn.Module:
        """One layer with all rows, of which the arrays of `layers` become watched views.

        What is known to be joined is used again, so that its memory is not taken twice.
        """
        own = [{key: layer[key] for key in _arrays(layer)} for layer in layers]
        whole = next((whole for parts, whole in self._known if _identities(parts) == _identities(own)), None)
        if whole is None:
            whole = copy(layers[0])  # its group size, bits and mode
            for key in own[0] if len(layers) > 1 else ():
                whole[key] = mx.concatenate([part[key] for part in own])
        ends = list(accumulate(part["weight"].shape[0] for part in own))
        for key in own[0]:
            for layer, start, end in zip(layers, [0, *ends], ends, strict=False):
                layer[key] = WatchedArray.sharing(whole[key][start:end], self.changes)
                mx.eval(layer[key])
        self._joined.append(
            ([{key: layer[key] for key in part} for layer, part in zip(layers, own, strict=True)], whole)
        )
        return whole


def _identities(parts: list[dict[str, mx.array]]) -> list[dict[str, int]]:
    return [{key: id(array) for key, array in part.items()} for part in parts]


def join(layers: Sequence[nn.Module], joints: Joints) -> list[nn.Module]:
    """Join neighbouring linear layers that are stored alike: their rows, be it weights or codes, scales and biases.

    Layers of another type, with an additive bias, or quantized otherwise than their neighbour (recipes give some layers
    more bits) stay as they are. Of adapted layers the bases are joined; what adapters add becomes one update of them.

    Args:
        layers: with one input. Their arrays are replaced by views of the joined ones, evaluated; memory is not doubled.
        joints: notes what is joined, and what may be used again.

    Returns:
        Layers whose outputs, concatenated along the last axis, are those of `layers`. They follow no later change.
    """
    groups = (list(group) for _, group in groupby(layers, _storage))
    return [_joined(group, joints) if _is_matrix(group[0]) else group[0] for group in groups]


def _storage(layer: nn.Module) -> tuple[Any, ...]:
    """Equal for two layers if their rows can stand in one matrix."""
    if not _is_matrix(layer):
        return (id(layer),)
    if type(layer) is AdaptedLinear:
        return _storage(layer["base"])
    if is_plain(layer):
        return (nn.Linear, layer.weight.dtype)
    return (nn.QuantizedLinear, layer.group_size, layer.bits, layer.mode, layer.scales.dtype)


def _is_matrix(layer: nn.Module) -> bool:
    """Whether a layer can be joined. Arrays of one element could not be compared as `_kept` does it."""
    if type(layer) is AdaptedLinear:
        return _is_matrix(layer["base"]) and all(layer[key].size > 1 for key in _arrays(layer))
    return (is_plain(layer) or is_quantized(layer)) and all(layer[key].size > 1 for key in _arrays(layer))


def _arrays(layer: nn.Module) -> list[str]:
    return [key for key, value in layer.items() if isinstance(value, mx.array)]


def _joined(layers: list[nn.Module], joints: Joints) -> nn.Module:
    bases = [layer["base"] if type(layer) is AdaptedLinear else layer for layer in layers]
    whole = keep_columns(joints.joined(bases))
    if all(base is layer for base, layer in zip(bases, layers, strict=True)):
        return whole
    for layer in layers:
        for key in _arrays(layer) if type(layer) is AdaptedLinear else ():
            layer[key] = WatchedArray.sharing(layer[key], joints.changes)
            mx.eval(layer[key])
    return _adapted(whole, layers, [base["weight"].shape[0] for base in bases])


def _adapted(whole: nn.Module, layers: list[nn.Module], heights: list[int]) -> nn.Module:
    """Around a joined layer, the updates of those that have one, side by side."""
    ends = list(accumulate(heights))
    adapted = [
        (layer, start, end)
        for layer, start, end in zip(layers, [0, *ends], ends, strict=False)
        if type(layer) is AdaptedLinear
    ]
    first: AdaptedLinear = adapted[0][0]
    dtype, rank = first["lora_b"].dtype, sum(layer["lora_b"].shape[0] for layer, _, _ in adapted)
    lora_b = mx.zeros((rank, ends[-1]), dtype)
    gain = mx.ones((ends[-1],), dtype) if any(layer.gain is not None for layer, _, _ in adapted) else None
    row = 0
    for layer, start, end in adapted:
        update = layer["lora_b"]
        lora_b[row : row + update.shape[0], start:end] = update
        row += update.shape[0]
        if gain is not None and layer.gain is not None:
            gain[start:end] = layer.gain
    joined = AdaptedLinear(whole, mx.concatenate([layer["lora_a"] for layer, _, _ in adapted], axis=1), lora_b, gain)
    mx.eval(joined.parameters())
    return joined


class WatchedArray(mx.array):
    """An array that notes when it is changed in place, which leaves it the same object.

    Attributes:
        changes: names of the operations that changed it or another array with which it shares the list.
    """

    changes: list[str]

    @classmethod
    def sharing(cls, array: mx.array, changes: list[str]) -> "WatchedArray":
        """A watched array of the same memory."""
        watched = cls(mx.zeros(array.shape, array.dtype))  # never evaluated
        mx.array.__setitem__(watched, ..., array)
        watched.changes = changes
        return watched


IN_PLACE = (
    "__setitem__",
    *("__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__imod__", "__ipow__", "__imatmul__"),
    *("__iand__", "__ior__", "__ixor__", "__ilshift__", "__irshift__"),
)
"""MLX's operations that change an array in place."""


def _watched(name: str) -> Callable[..., Any]:
    operation = getattr(mx.array, name)

    def change(array: WatchedArray, *arguments: Any) -> Any:
        array.changes.append(name)
        return operation(array, *arguments)

    return change


for _name in IN_PLACE:
    setattr(WatchedArray, _name, _watched(_name))
