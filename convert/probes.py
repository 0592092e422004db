"""Sees what flows through each layer of a network while it runs, or changes it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..model.layers.projections import product
from ..model.smolvlm import SmolVLM

# The patch embedding with its positions, which no other layer calls: seen as one.
_UNITS = ("vision_model.embeddings",)

Observe = Callable[[str, nn.Module, str, mx.array, mx.array], mx.array]
"""(path, layer, method, input, output) -> the output to go on with. `method` is "__call__", or "as_linear" where tied
embeddings serve as the head."""


class Probe:
    """Stands in for a layer and shows each call to `observe`."""

    def __init__(self, path: str, layer: nn.Module, observe: Observe):
        self._path, self._layer, self._observe = path, layer, observe

    def __call__(self, x: mx.array) -> mx.array:
        return self._observe(self._path, self._layer, "__call__", x, product([self._layer])(x))

    def as_linear(self, x: mx.array) -> mx.array:
        """The head, where embeddings are tied."""
        return self._observe(self._path, self._layer, "as_linear", x, self._layer.as_linear(x))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)


@contextmanager
def probed(model: SmolVLM, observe: Observe, under: str = "") -> Iterator[None]:
    """Within: every layer with parameters of its own, whose path begins with `under`, reports its calls.

    A fused decoder works too, but its blocks are no longer joined then, nor afterwards (see `LanguageModel.fuse`).
    """
    named = model.named_modules()
    layers = {path: layer for path, layer in named if path.startswith(under) and _is_layer(path, layer)}
    for path, layer in layers.items():
        set_module(model, path, Probe(path, layer, observe))
    try:
        yield
    finally:
        for path, layer in layers.items():
            set_module(model, path, layer)


def _is_layer(path: str, layer: nn.Module) -> bool:
    if path in _UNITS:
        return True
    if path.startswith(_UNITS):
        return False
    return not layer.children() and bool(tree_flatten(layer.parameters()))


def get_module(model: nn.Module, path: str) -> Any:
    """The module of a dotted path, such as `language_model.layers.0.mlp.up_proj`."""
    node: Any = model
    for key in path.split("."):
        node = node[int(key)] if isinstance(node, list) else getattr(node, key)
    return node


def set_module(model: nn.Module, path: str, module: Any) -> None:
    """Put a module in the place of a dotted path."""
    parent, _, name = path.rpartition(".")
    get_module(model, parent)[name] = module  # as an item: networks read their parts so where each token passes
