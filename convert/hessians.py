"""Hessians of the decoder's layers (how their inputs correlate), measured block by block."""

from collections.abc import Collection, Iterator, Sequence

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..model.smolvlm import SmolVLM
from .blocks import Block, decoder_block, head_path
from .calibration_data import ScoredSample, embed
from .probes import probed

Hessian = mx.array
"""Sum over tokens of x x^T for the inputs x of a layer, (in, in) float32."""


def decoder_hessians(
    model: SmolVLM, samples: Sequence[ScoredSample], paths: Collection[str]
) -> Iterator[dict[str, Hessian]]:
    """The Hessians of the layers `paths`, one block of the decoder after the other, the head last.

    Whoever takes them may change the weights of that block before asking for the next, which is then run on what comes
    out of the changed one. Needs memory for the samples' hidden states and one block's Hessians.
    """
    language = model.language_model
    hidden = []
    for sample in samples:
        hidden.append(embed(model, sample))
        mx.eval(hidden[-1])
    for number in range(len(language.layers)):
        block = decoder_block(language, number)
        yield _block_hessians(model, f"language_model.layers.{number}.", block, hidden, paths)
        for i, x in enumerate(hidden):
            hidden[i] = block(x)
            mx.eval(hidden[i])
    for i, sample in enumerate(samples):  # what follows an image's tokens is never asked for
        text = np.flatnonzero(np.array(sample.input_ids) != model.config.image_token_id)
        hidden[i] = language.norm(hidden[i][:, mx.array(text)])
    yield _block_hessians(model, head_path(model.config), language.logits, hidden, paths)


def _block_hessians(
    model: SmolVLM, under: str, block: Block, hidden: Sequence[mx.array], paths: Collection[str]
) -> dict[str, Hessian]:
    """Layers with one input, such as queries, keys and values, share one array."""
    sums: dict[str, Hessian] = {}
    first: dict[str, str] = {}  # path -> the first layer that had the same input
    last: tuple[mx.array, str] | None = None  # an input, and the first layer that had it

    def observe(path: str, layer: nn.Module, method: str, x: mx.array, y: mx.array) -> mx.array:
        nonlocal last
        if path in paths:
            if last is None or last[0] is not x:
                rows = x.reshape(-1, x.shape[-1]).astype(mx.float32)
                sums[path] = rows.T @ rows + sums.get(path, 0)
                mx.eval(sums[path])
                last = x, path
            first[path] = last[1]
        return y

    with probed(model, observe, under):
        for x in hidden:
            mx.eval(block(x))
    return {path: sums[source] for path, source in first.items()}
