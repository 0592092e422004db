"""Direct preference optimization: the chosen answer becomes likelier than the rejected one, measured against the base.

The loss is TRL's (`trainer/dpo_trainer.py`, loss "sigmoid"): with the log probability of an answer the sum over its
tokens, -log sigmoid(beta * ((chosen - rejected) - (chosen - rejected of the base))), a mean over pairs.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx
import numpy as np

from ...model.adapters.attaching import put_layer
from .forward import MicroBatch, token_losses
from .low_rank import LowRankEmbedding, LowRankLinear
from .trainable import Trainable


def pair_losses(trainable: Trainable, batch: MicroBatch, checkpoint: bool = False, *, beta: float) -> mx.array:
    """The losses of pairs, (num_pairs,) float32.

    Args:
        trainable: the model.
        batch: rows, a chosen and a rejected answer in turn, with a `reference`: what `log_ratios` is for the base.
        checkpoint: as in `token_losses`.
        beta: how far the model may leave the base; the smaller, the further.
    """
    assert batch.reference is not None
    return mx.logaddexp(mx.array(0.0), -beta * (log_ratios(trainable, batch, checkpoint) - batch.reference))


def log_ratios(trainable: Trainable, batch: MicroBatch, checkpoint: bool = False) -> mx.array:
    """Log probability of the chosen answer less that of the rejected one, (num_pairs,) float32, by pair of rows."""
    losses = token_losses(trainable, batch, checkpoint)
    ends = np.cumsum(batch.lengths)
    counts = np.searchsorted(batch.predicted, ends)  # how many trained tokens come before the end of each row
    sums = mx.stack([part.sum() for part in mx.split(losses, counts[:-1].tolist())])
    return sums[1::2] - sums[::2]


@contextmanager
def as_the_base(trainable: Trainable) -> Iterator[None]:
    """Within: the model is the base, without what is trained.

    Raises:
        ValueError: whole tensors are trained, which the base has no copy of.
    """
    layers = {
        path: layer
        for path, layer in trainable.model.named_modules()
        if isinstance(layer, LowRankLinear | LowRankEmbedding)
    }
    whole = [name for name in trainable.parameters if name.rpartition(".")[0] not in layers]
    if whole:
        raise ValueError(f"preferences are measured against the base, but {whole[0]} is trained as a whole")
    for path, layer in layers.items():
        put_layer(trainable.model, path, layer.base)
    try:
        yield
    finally:
        for path, layer in layers.items():
            put_layer(trainable.model, path, layer)
