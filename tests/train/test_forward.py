"""Losses and gradients do not depend on how rows are put together."""

import mlx.core as mx
import numpy as np
import pytest
from support.training import batch_of, examples_of, trainable_of, write_rows

from mlx_smolvlm.train.learning.forward import token_losses
from mlx_smolvlm.train.learning.head_losses import cross_entropies
from mlx_smolvlm.train.learning.optimization import Optimization, gradients_of
from mlx_smolvlm.train.recipe import Recipe, learning_rate_factor


@pytest.fixture(scope="module")
def examples(checkpoint, tmp_path_factory):
    return examples_of(checkpoint("smolvlm_256m"), write_rows(tmp_path_factory.mktemp("rows")))


@pytest.fixture(scope="module")
def trainable(checkpoint):
    """With dropout, and the encoder and the connector."""
    return trainable_of(checkpoint("smolvlm_256m"), dropout=0.3, train_vision=True, train_connector=True)


def test_rows_side_by_side_are_rows_alone(trainable, examples):
    """Rows of text and of images, with dropout."""
    rows = [3, 0, 4, 1]
    together = token_losses(trainable, batch_of(trainable, examples, rows, "step"))
    alone = [token_losses(trainable, batch_of(trainable, examples, [row], "step")) for row in rows]
    assert mx.abs(together - mx.concatenate(alone)).max().item() < 1e-4
    other = token_losses(trainable, batch_of(trainable, examples, rows, "next step"))
    assert mx.abs(together - other).max().item() < 1e-4  # B is 0: nothing to drop yet


def test_gradients_do_not_depend_on_batches_or_on_computing_again(trainable, examples):
    at_once = gradients_of(trainable, [batch_of(trainable, examples, [0, 1, 3, 4], "step")])
    assert at_once.num_losses == sum(int(examples[row].trained.sum()) for row in (0, 1, 3, 4))
    parts = [batch_of(trainable, examples, rows, "step") for rows in ([0, 3], [1], [4])]
    again = gradients_of(trainable, parts, checkpoint=True)
    assert again.loss == pytest.approx(at_once.loss, rel=1e-6)
    for name, array in at_once.arrays.items():
        assert mx.abs(again.arrays[name] - array).max().item() < 1e-6 * max(1, at_once.norm), name
    other = gradients_of(trainable, [batch_of(trainable, examples, [0, 1, 3, 4], "another step")])
    assert max(mx.abs(other.arrays[name] - array).max().item() for name, array in at_once.arrays.items()) > 1e-3


def test_without_trained_tokens_nothing_changes(trainable, examples):
    batch = batch_of(trainable, examples, [0])
    nothing = type(batch)(batch.names, batch.input_ids, batch.lengths, np.zeros(0, np.int32), tile_counts=[0])
    gradients = gradients_of(trainable, [nothing])
    assert (gradients.loss, gradients.arrays, gradients.are_finite) == (None, {}, True)
    before = dict(trainable.parameters)
    Optimization(trainable, Recipe(), 1).update(gradients)
    assert all(trainable.parameters[name] is array for name, array in before.items())


def test_cross_entropies_of_a_large_vocabulary_are_exact():
    """MLX's own sum on the CPU is wrong in the fourth digit."""
    random = np.random.RandomState(0)
    logits, targets = (4 * random.standard_normal((8, 49280))).astype(np.float32), random.randint(0, 49280, 8)
    wide = logits.astype(np.float64)
    expected = np.log(np.exp(wide).sum(1)) - wide[np.arange(8), targets]
    found = cross_entropies(mx.array(logits), mx.array(targets))
    np.testing.assert_allclose(np.array(found), expected, rtol=0, atol=5e-6)
    short = cross_entropies(mx.array(logits[:, :7]), mx.array(targets % 7))
    expected = np.log(np.exp(wide[:, :7]).sum(1)) - wide[np.arange(8), targets % 7]
    np.testing.assert_allclose(np.array(short), expected, rtol=0, atol=5e-6)


def test_the_rate_rises_and_falls_as_in_transformers():
    assert [learning_rate_factor(step, 8, "constant", 2) for step in range(4)] == [0, 0.5, 1, 1]
    cosine = [learning_rate_factor(step, 6, "cosine", 2) for step in range(7)]
    np.testing.assert_allclose(cosine, [0, 0.5, 1, 0.853553, 0.5, 0.146447, 0], atol=1e-6)
