"""Preferences: the loss of TRL's DPO, worked out from the model's logits, and what training by it does."""

import math
from functools import partial

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

import mlx_smolvlm
from mlx_smolvlm.train.dataset.examples import make_example
from mlx_smolvlm.train.dataset.preference_rows import read_preference
from mlx_smolvlm.train.dataset.row_media import RowMedia
from mlx_smolvlm.train.learning.micro_batches import MicroBatches
from mlx_smolvlm.train.learning.optimization import Optimization, gradients_of
from mlx_smolvlm.train.learning.preferences import as_it_began, log_ratios, measured_pair_losses, pair_losses
from mlx_smolvlm.train.learning.stored_features import StoredFeatures
from mlx_smolvlm.train.learning.trainable import Trainable
from mlx_smolvlm.train.recipe import Recipe

RECIPE = Recipe(preference=True, beta=0.5, learning_rate=5e-3, rank=4, method="dora", dropout=0.25)


@pytest.fixture
def pairs(trained_checkpoint, tmp_path):
    """A model to be trained, and two pairs of rows, one with an image."""
    model, processor = mlx_smolvlm.load(trained_checkpoint, dtype="float32", fuse=False)
    trainable = Trainable(model, RECIPE)
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    entries = [
        {"question": "What color is it?", "image": "a.png", "chosen": "Blue.", "rejected": "Red."},
        {"question": "How many shapes are there?", "chosen": "One, I think.", "rejected": "Two."},
    ]
    rows = [read_preference(entry, str(number), RowMedia(tmp_path)) for number, entry in enumerate(entries)]
    options = mlx_smolvlm.MediaOptions(do_image_splitting=False)
    both = [row for pair in rows for row in (pair.chosen, pair.rejected)]
    examples = [make_example(processor, row, media_options=options) for row in both]
    batches = MicroBatches(trainable, examples, StoredFeatures(model, None), are_pairs=True)
    trainable.noise.rate = 0.0
    return trainable, examples, batches


def log_probability(model, example):
    """Of the trained tokens, from the logits of the whole row."""
    logits = model(example.input_ids, example.tiles() if example.num_tiles else None)[0]
    log_probabilities = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
    places = np.flatnonzero(example.trained)
    return log_probabilities[places - 1, example.input_ids[places]].sum()


def test_the_loss_is_that_of_log_probabilities_against_the_base(pairs):
    trainable, examples, batches = pairs
    base = [log_probability(trainable.model, example) for example in examples]
    for name in trainable.parameters:  # away from the base
        key = mx.random.key(len(name))
        array = trainable.parameters[name]
        trainable.parameters[name] = array + 0.02 * mx.random.normal(array.shape, key=key)
    trainable.put(trainable.parameters)
    tuned = [log_probability(trainable.model, example) for example in examples]
    batch = batches.of([0, 1, 2, 3], "")
    expected = [tuned[0] - tuned[1], tuned[2] - tuned[3]]
    np.testing.assert_allclose(np.array(log_ratios(trainable, batch)), expected, atol=1e-4)
    np.testing.assert_allclose(np.array(batch.reference), [base[0] - base[1], base[2] - base[3]], atol=1e-4)
    margins = [(tuned[n] - tuned[n + 1]) - (base[n] - base[n + 1]) for n in (0, 2)]
    losses = [-math.log(1 / (1 + math.exp(-0.5 * margin))) for margin in margins]
    np.testing.assert_allclose(np.array(pair_losses(trainable, batch, beta=0.5)), losses, atol=1e-4)
    rewards = 0.5 * (np.array(tuned) - np.array(base))
    sums = [rewards[::2].sum(), rewards[1::2].sum(), sum(margin > 0 for margin in margins), 0.5 * sum(margins)]
    np.testing.assert_allclose(np.array(measured_pair_losses(trainable, batch, beta=0.5)[1]), sums, atol=1e-4)
    with as_it_began(trainable, batches._initial):
        np.testing.assert_allclose(log_probability(trainable.model, examples[0]), base[0], atol=1e-5)
    np.testing.assert_allclose(log_probability(trainable.model, examples[0]), tuned[0], atol=1e-5)


def test_training_makes_the_chosen_answers_likelier_however_pairs_are_divided(pairs):
    trainable, _, batches = pairs
    losses = partial(pair_losses, beta=RECIPE.beta)
    whole = gradients_of(trainable, [batches.of([0, 1, 2, 3], "")], losses)
    apart = gradients_of(trainable, [batches.of([0, 1], ""), batches.of([2, 3], "")], losses)
    assert whole.loss == pytest.approx(math.log(2), abs=1e-5)  # the model is the base still
    assert (whole.num_losses, apart.num_losses) == (2, 2)
    for name, array in whole.arrays.items():
        np.testing.assert_allclose(np.array(array), np.array(apart.arrays[name]), atol=1e-5)
    optimization = Optimization(trainable, RECIPE, 2)
    optimization.update(whole)
    optimization.update(gradients_of(trainable, [batches.of([0, 1, 2, 3], "")], losses))
    batch = batches.of([0, 1, 2, 3], "")
    after = gradients_of(trainable, [batch], partial(measured_pair_losses, beta=RECIPE.beta)).measures
    assert after["rewards/accuracies"] == 1
    assert after["rewards/margins"] == pytest.approx(after["rewards/chosen"] - after["rewards/rejected"], abs=1e-6)
    assert after["rewards/margins"] > 0.1 * RECIPE.beta
