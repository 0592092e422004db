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

MEASURES = ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins")
"""What is said of pairs beside their loss, by TRL's names: means of beta times what answers have become likelier by,
the share of pairs whose chosen answer has gained more, and by how much more."""

SHOWN = MEASURES[2:]  # beside the loss, while it trains


def pair_losses(trainable: Trainable, batch: MicroBatch, checkpoint: bool = False, *, beta: float) -> mx.array:
    """The losses of pairs, (num_pairs,) float32.

    Args:
        trainable: the model.
        batch: rows, a chosen and a rejected answer in turn, with `references`: what `log_probabilities` was for them.
        checkpoint: as in `token_losses`.
        beta: how far the model may leave the reference; the smaller, the further.
    """
    return measured_pair_losses(trainable, batch, checkpoint, beta=beta)[0]


def measured_pair_losses(
    trainable: Trainable, batch: MicroBatch, checkpoint: bool = False, *, beta: float
) -> tuple[mx.array, mx.array]:
    """As `pair_losses`, with the sums over pairs of `MEASURES`, (4,) float32."""
    assert batch.references is not None
    rewards = beta * (log_probabilities(trainable, batch, checkpoint) - batch.references)
    chosen, rejected = rewards[::2], rewards[1::2]
    margins = chosen - rejected
    measures = [chosen, rejected, (margins > 0).astype(mx.float32), margins]
    return mx.logaddexp(mx.array(0.0), -margins), mx.stop_gradient(mx.stack([each.sum() for each in measures]))


def log_ratios(trainable: Trainable, batch: MicroBatch, checkpoint: bool = False) -> mx.array:
    """Log probability of the chosen answer less that of the rejected one, (num_pairs,) float32, by pair of rows."""
    answers = log_probabilities(trainable, batch, checkpoint)
    return answers[::2] - answers[1::2]


def log_probabilities(trainable: Trainable, batch: MicroBatch, checkpoint: bool = False) -> mx.array:
    """Log probability of the answer of each row, (num_rows,) float32."""
    losses = token_losses(trainable, batch, checkpoint)
    ends = np.cumsum(batch.lengths)
    counts = np.searchsorted(batch.predicted, ends)  # how many trained tokens come before the end of each row
    return -mx.stack([part.sum() for part in mx.split(losses, counts[:-1].tolist())])


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
