"""The memory that a run is said to take at most."""

from dataclasses import replace

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from support.training import batch_of, examples_of, trainable_of, write_rows

from mlx_smolvlm.train.learning.optimization import gradients_of
from mlx_smolvlm.train.learning.step_memory import MICRO_BATCH_TOKENS, MemoryNeeds, plan_memory

BASE = 64 * 1024**2  # which is added to every bound, and more than these tiny models take


@pytest.fixture(scope="module")
def examples(checkpoint, tmp_path_factory):
    return examples_of(checkpoint("smolvlm_256m"), write_rows(tmp_path_factory.mktemp("rows")))


def needs_of(trainable, examples):
    return MemoryNeeds(
        trainable.model.config,
        4,
        4,
        sum(array.nbytes for _, array in tree_flatten(trainable.model.parameters())),
        0,
        trainable.num_parameters,
        not trainable.encoder_is_frozen,
        max(len(example.input_ids) for example in examples),
        max(int(example.trained.sum()) for example in examples),
        max(example.num_tiles for example in examples),
        10_000,
    )


@pytest.mark.parametrize("checkpoint_activations", [False, True])
@pytest.mark.parametrize("options", [{}, {"train_vision": True}, {"method": "full", "train_vision": True}])
def test_a_step_stays_below_the_bound(checkpoint, examples, options, checkpoint_activations):
    trainable = trainable_of(checkpoint("smolvlm_256m"), **options)
    needs, rows = needs_of(trainable, examples), [0, 1, 2, 3, 4]
    num_tokens = sum(len(examples[row].input_ids) for row in rows)
    batch = batch_of(trainable, examples, rows)
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    gradients_of(trainable, [batch], checkpoint=checkpoint_activations)
    taken = mx.get_peak_memory() - before
    bound = needs.bound(num_tokens, checkpoint_activations) - needs.weight_bytes - BASE
    assert taken < bound < 12 * taken + 4 * 1024**2


def test_the_bound_given_chooses_how_rows_are_computed(checkpoint, examples):
    needs = needs_of(trainable_of(checkpoint("smolvlm_256m"), train_vision=True), examples)
    plain, again = (needs.bound(MICRO_BATCH_TOKENS, value) for value in (False, True))
    small = needs.bound(needs.longest_row, False)
    least = needs.bound(needs.longest_row, True)
    assert least < again < plain
    assert plan_memory(needs, False, None).max_tokens == MICRO_BATCH_TOKENS
    assert plan_memory(replace(needs, most_tokens=300), False, None).max_tokens == 300
    for max_bytes in (plain, small, again, least):
        plan = plan_memory(needs, False, max_bytes)
        assert plan.bound_bytes <= max_bytes
    assert not plan_memory(needs, False, plain).checkpoint
    assert plan_memory(needs, False, min(small - 1, again)).checkpoint
    with pytest.raises(ValueError, match="one row at a time can take"):
        plan_memory(needs, False, least - 1)


def test_weights_and_tiles_of_the_encoder_count_while_images_are_encoded(checkpoint, examples):
    needs = needs_of(trainable_of(checkpoint("smolvlm_256m")), examples)
    text, much = replace(needs, most_tiles=0), 10**9
    assert needs.bound(100, False) == text.bound(100, False)
    encoding = replace(needs, encoding_bytes=much).bound(100, False)
    assert much < encoding < much + 10**8 + BASE
