"""How many kernels one decoded token launches, and how long Python takes to build the step.

The graph is built without being evaluated and its nodes are counted, so the figure is the same on every machine.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import mlx.core as mx

from ..model.language import LanguageModel

VIEWS = {"Reshape", "Flatten", "Unflatten", "Transpose", "Slice", "ExpandDims", "Squeeze", "Broadcast", "Split"}


def kernels_per_token(model: LanguageModel, context: int = 8) -> int:
    """Kernels of one step after a prompt of `context` tokens, views left out, sampling not included."""
    cache = model.make_cache()
    mx.eval(_step(model, mx.zeros(context, mx.int32), cache))
    with _fused_operations():
        logits = _step(model, mx.array([0]), cache)
        dot = StringIO()
        mx.export_to_dot(dot, logits)
    return sum(label not in VIEWS for label in re.findall(r'\[label ?= ?"(\w+)', dot.getvalue()))


def build_seconds(model: LanguageModel, steps: int, context: int = 8) -> list[float]:
    """Processor time from the call to the unevaluated logits, for each of several steps, built as for a GPU.

    On a CPU, MLX takes normalization, rotation and attention apart while the graph is built, which takes longer.
    """
    cache = model.make_cache()
    token = mx.array([0])
    mx.eval(_step(model, mx.zeros(context, mx.int32), cache))
    held = [layer.buffer for layer in cache]
    spent = []
    with _fused_operations():
        for _ in range(steps):
            start = time.thread_time()
            _step(model, token, cache)
            spent.append(time.thread_time() - start)
            for layer, buffer in zip(cache, held, strict=True):  # the stand-ins compute nothing that could be kept
                layer.buffer, layer.offset = buffer, context
    return spent


def _step(model: LanguageModel, token_ids: mx.array, cache: list[Any]) -> mx.array:
    hidden = model(model.embed_tokens(token_ids)[None], cache)
    return model.logits(hidden[:, -1])


def _dequantized(codes: mx.array, scales: mx.array, biases: mx.array | None = None, *, bits: int, **_: Any) -> mx.array:
    """Stands for the codes of a token's embedding, (..., packed), unpacked: (..., width)."""
    width = codes.shape[-1] * 32 // bits
    unpacked: mx.array = mx.depends(mx.zeros((*codes.shape[:-1], width), scales.dtype), [codes, scales])
    return unpacked


@contextmanager
def _fused_operations() -> Iterator[None]:
    """Let operations that GPUs run as one kernel be one node, as they are there; on a CPU they are made of several."""
    stand_ins: list[tuple[Any, str, Any]] = [
        (mx.fast, "rms_norm", lambda x, weight, eps: mx.depends(x, [weight])),
        (mx.fast, "rope", lambda x, dims, **_: mx.sort(x)),  # any operation that keeps the shape, other than a view
        (mx.fast, "scaled_dot_product_attention", lambda q, k, v, **_: mx.depends(q, [k, v])),
        (mx, "dequantize", _dequantized),
        (mx, "default_device", lambda: mx.gpu),  # so that element-wise chains are compiled into one
    ]
    originals = [getattr(module, name) for module, name, _ in stand_ins]
    try:
        for module, name, stand_in in stand_ins:
            setattr(module, name, stand_in)
        yield
    finally:
        for (module, name, _), original in zip(stand_ins, originals, strict=True):
            setattr(module, name, original)
