"""Direct preference optimization: the chosen answer becomes likelier than the rejected one, compared with a reference.

The loss is TRL's (`trainer/dpo_trainer.py`, loss "sigmoid"): with the log probability of an answer the sum over its
tokens, -log sigmoid(beta * ((chosen - rejected) - (chosen - rejected of the reference))), a mean over pairs. The
reference is the model with which training began, as in TRL: the base, or the base with the adapter that is continued.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import mlx.core as mx
import numpy as np

from .forward import MicroBatch, token_losses
from .trainable import Trainable


def pair_losses(trainable: Trainable, batch: MicroBatch, checkpoint: bool = False, *, beta: float) -> mx.array:
    """The losses of pairs, (num_pairs,) float32.

    Args:
        trainable: the model.
        batch: rows, a chosen and a rejected answer in turn, with a `reference`: what `log_ratios` is for it.
        checkpoint: as in `token_losses`.
        beta: how far the model may leave the reference; the smaller, the further.
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
def as_it_began(trainable: Trainable, initial: Mapping[str, mx.array]) -> Iterator[None]:
    """Within: the model has these parameters, and no dropout."""
    rate, trainable.noise.rate = trainable.noise.rate, 0.0
    trainable.put(initial)
    try:
        yield
    finally:
        trainable.noise.rate = rate
        trainable.put(trainable.parameters)
