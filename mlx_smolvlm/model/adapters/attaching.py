"""A base model and what adapters change -> a model that shares the base's arrays and has layers of its own.

The base stays what it is, so any number of adapted models can stand on it, and whatever is bound to a model (prompt
caches, feature caches, sessions, rows) is bound to one set of adapters. Adapted layers keep the base's weights, plain
or quantized, and add the low-rank product; where an adapter brings a whole tensor, that is taken instead.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..layers.adapted import AdaptedEmbedding, AdaptedLinear
from ..smolvlm import SmolVLM
from .adapter_files import Adapter
from .changes import EMBEDDINGS, HEAD, Changes, Part, gain_of

LARGEST_SHARE = 1 / 3
"""Of a weight's size: low-rank matrices that take more are not worth the two products that they cost in each step."""


def attach(model: SmolVLM, adapters: Sequence[tuple[Adapter, float]]) -> SmolVLM:
    """A model with adapters, each with its weight; `model` itself is not changed.

    Memory is taken by the adapters, by tensors that they bring whole, and by nothing else. Later changes of the base's
    layers do not reach the new model.

    Raises:
        ValueError: adapters that do not fit the model or each other, or a model that was changed after it was loaded.
    """
    layers = {path: layer for path, layer in model.named_modules() if path}
    if any(isinstance(layer, AdaptedLinear | AdaptedEmbedding) for layer in layers.values()):
        raise ValueError("the model has adapters already; attach all of them to its base at once")
    config = model.config
    is_tied = not config.is_retriever and not hasattr(model.language_model, "lm_head")
    changes = Changes(adapters, layer_shapes(layers), is_tied)
    adapted: SmolVLM = _copied(model)
    dtype = model.language_model.norm.weight.dtype
    places = {path: layer for path, layer in adapted.named_modules() if path}
    if is_tied and not changes.tie_word_embeddings:
        places[HEAD] = adapted.language_model["lm_head"] = head_of(places[EMBEDDINGS])
    for name in sorted(changes.names, key=lambda name: name.endswith(".weight")):  # biases before what is around them
        path, _, key = name.rpartition(".")
        layer, parts = places[path], changes.parts(name)
        if _is_dense(layer, parts):
            array = changes.merge(name, dense_weight(layer) if key == "weight" else layer[key]).astype(dtype)
            mx.eval(array)
            replace_array(adapted, path, layer, key, array)
        else:
            put_layer(adapted, path, _around(layer, parts, dtype))
    text = replace(config.text, vocab_size=changes.vocab_size)
    adapted._config = replace(config, text=text, tie_word_embeddings=changes.tie_word_embeddings)
    mx.eval(adapted.parameters())
    if any(getattr(block, "is_fused", False) for block in model.language_model.modules()):
        adapted.language_model.fuse()
    return adapted


def dense_weight(layer: nn.Module) -> mx.array:
    """A layer's weight, of a quantized one what its codes stand for, in float32 there."""
    weight: mx.array = layer["weight"]
    if not isinstance(layer, nn.QuantizedLinear | nn.QuantizedEmbedding):
        return weight
    stored = weight, layer["scales"], layer.get("biases")
    return mx.dequantize(*stored, layer.group_size, layer.bits, layer.mode, dtype=mx.float32)


def layer_shapes(layers: dict[str, nn.Module]) -> dict[str, tuple[int, ...]]:
    """Of all arrays by name; a quantized weight has that of what its codes stand for."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path, layer in layers.items():
        quantized = isinstance(layer, nn.QuantizedLinear | nn.QuantizedEmbedding)
        for key, value in layer.items():
            if not isinstance(value, mx.array) or key.startswith("_") or (quantized and key in ("scales", "biases")):
                continue
            shape = tuple(value.shape)
            shapes[f"{path}.{key}"] = (
                (shape[0], shape[1] * 32 // layer.bits) if quantized and key == "weight" else shape
            )
    return shapes


def _copied(value: Any) -> Any:
    """A tree of modules of its own, with the same arrays."""
    if isinstance(value, nn.Module):
        module = value.__class__.__new__(value.__class__)
        for key, item in value.items():
            dict.__setitem__(module, key, _copied(item))
        vars(module).update({key: set(held) if isinstance(held, set) else held for key, held in vars(value).items()})
        return module
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return {key: _copied(item) for key, item in value.items()} if type(value) is dict else value


def head_of(embeddings: nn.Module) -> nn.Module:
    """The embeddings as a linear layer."""
    head: nn.Module
    if isinstance(embeddings, nn.QuantizedEmbedding):
        form = embeddings.group_size, embeddings.bits, embeddings.mode
        head = nn.QuantizedLinear(embeddings.dims, embeddings.num_embeddings, False, *form)  # lazy, and dropped
    else:
        head = nn.Linear(embeddings["weight"].shape[1], embeddings["weight"].shape[0], bias=False)
    for key in ("weight", "scales", "biases"):
        if key in embeddings:
            head[key] = embeddings[key]
    return head


def _is_dense(layer: nn.Module, parts: Sequence[Part]) -> bool:
    """Whether the layer gets a weight of its own: the sum of all changes is no low-rank one, or none that pays.

    Low-rank matrices save memory and cost two more products in every step.
    """
    kinds = nn.Linear | nn.QuantizedLinear | nn.Embedding | nn.QuantizedEmbedding
    updates = [part.update for part in parts if part.update is not None]
    if len(updates) < len(parts) or any(part.whole is not None for part in parts) or not isinstance(layer, kinds):
        return True
    rows, width = updates[0].shape
    size = sum(update.a.shape[0] for update in updates) * (rows + width)
    return size > LARGEST_SHARE * rows * width


def _around(layer: nn.Module, parts: Sequence[Part], dtype: mx.Dtype) -> nn.Module:
    """The layer with the low-rank changes of all adapters, as one."""
    columns, gains = [], []
    for weight, _, update in parts:
        assert update is not None
        product = weight * update.scaling * update.b.astype(mx.float32)
        if update.magnitude is not None:
            gain = gain_of(update.magnitude, dense_weight(layer).astype(mx.float32) + update.product())
            product = gain[:, None] * product
            gains.append(weight * (gain - 1))
        columns.append(product)
    lora_a = mx.contiguous(mx.concatenate([part.update.a for part in parts if part.update is not None]).T.astype(dtype))
    lora_b = mx.contiguous(mx.concatenate(columns, axis=1).T.astype(dtype))
    total = (1 + sum(gains[1:], gains[0])).astype(dtype) if gains else None
    mx.eval(lora_a, lora_b, [] if total is None else total)
    if isinstance(layer, nn.Embedding | nn.QuantizedEmbedding):
        return AdaptedEmbedding(layer, mx.contiguous(lora_b.T), mx.contiguous(lora_a.T), total)
    return AdaptedLinear(layer, lora_a, lora_b, total)


def replace_array(model: nn.Module, path: str, layer: nn.Module, key: str, array: mx.array) -> None:
    """Put a whole tensor in its place; a quantized layer becomes a plain one."""
    if key != "weight" or not isinstance(layer, nn.QuantizedLinear | nn.QuantizedEmbedding):
        layer[key] = array
        return
    rows, width = array.shape
    plain: nn.Module
    if isinstance(layer, nn.QuantizedEmbedding):
        plain = nn.Embedding(rows, width)
    else:
        plain = nn.Linear(width, rows, bias="bias" in layer)
        if "bias" in layer:
            plain["bias"] = layer["bias"]
    plain["weight"] = array
    put_layer(model, path, plain)


def put_layer(model: nn.Module, path: str, layer: nn.Module) -> None:
    """Put a layer in the place of the one that has this path."""
    place: Any = model
    *parents, last = path.split(".")
    for name in parents:
        place = place[int(name)] if isinstance(place, list) else place[name]
    place[last] = layer
