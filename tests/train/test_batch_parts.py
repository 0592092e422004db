"""A micro-batch in parts, which a CPU computes side by side, is the micro-batch."""

import os
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from support.training import batch_of, examples_of, trainable_of, write_rows

from mlx_smolvlm.train.learning import batch_parts, blas_threads
from mlx_smolvlm.train.learning.batch_parts import parts_of
from mlx_smolvlm.train.learning.forward import token_losses
from mlx_smolvlm.train.learning.micro_batches import MicroBatches
from mlx_smolvlm.train.learning.optimization import gradients_of
from mlx_smolvlm.train.learning.stored_features import StoredFeatures

ROWS = [4, 3, 0, 1]


@pytest.fixture(scope="module")
def examples(checkpoint, tmp_path_factory):
    return examples_of(checkpoint("smolvlm_256m"), write_rows(tmp_path_factory.mktemp("rows")))


@pytest.fixture
def three_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr(batch_parts, "_TOKENS", 8)


@pytest.mark.parametrize("checkpoint_activations", [False, True])
def test_gradients_of_parts_are_those_of_the_whole(
    checkpoint, examples, monkeypatch, three_cores, checkpoint_activations
):
    """With dropout, the head, the encoder and the connector."""
    targets = ("down_proj", "o_proj", "lm_head", "vision_model.encoder.layers.0.mlp.fc1", "modality_projection.proj")
    trainable = trainable_of(checkpoint("smolvlm_256m"), dropout=0.3, targets=targets, rank=4)
    for name, array in trainable.parameters.items():
        trainable.parameters[name] = array + 0.02 * mx.random.normal(array.shape, key=mx.random.key(len(name)))
    batch = batch_of(trainable, examples, ROWS, "step")
    assert len(parts_of(batch)) == 3
    parted = gradients_of(trainable, [batch], checkpoint=checkpoint_activations)
    monkeypatch.setattr(batch_parts, "_TOKENS", 10**6)
    whole = gradients_of(trainable, [batch])
    assert parted.loss == pytest.approx(whole.loss, rel=1e-6)
    assert parted.arrays.keys() == trainable.parameters.keys()
    for name, array in whole.arrays.items():
        assert mx.abs(parted.arrays[name] - array).max().item() < 1e-6 * max(1, whole.norm), name
    alone = [token_losses(trainable, batch_of(trainable, examples, [row], "step")) for row in ROWS]
    assert mx.abs(token_losses(trainable, batch) - mx.concatenate(alone)).max().item() < 1e-4


def test_parts_hold_whole_rows_and_pairs(checkpoint, examples, three_cores):
    trainable = trainable_of(checkpoint("smolvlm_256m"))
    store = StoredFeatures(trainable.model, None)
    batch = MicroBatches(trainable, examples, store).of(ROWS, "")
    parts = parts_of(batch)
    assert [name for part in parts for name in part.names] == batch.names
    tokens = np.concatenate([part.input_ids[part.predicted] for part in parts])
    assert np.array_equal(tokens, batch.input_ids[batch.predicted])
    features = mx.concatenate([part.features for part in parts if part.features is not None])
    assert mx.array_equal(features, batch.features)
    pairs = MicroBatches(trainable, examples, store, are_pairs=True).of([2, 3, 0, 1], "")
    parts = parts_of(pairs)
    assert [len(part.names) for part in parts] == [2, 2]
    assert mx.array_equal(mx.concatenate([part.references for part in parts]), pairs.references)
    assert sum(part.num_losses for part in parts) == 2


def test_products_of_parts_are_not_shared_among_threads(checkpoint, examples, monkeypatch, three_cores):
    """OpenBLAS has one group of threads, for which the parts would wait in turn."""
    told = []
    library = SimpleNamespace(openblas_get_num_threads=lambda: 7, openblas_set_num_threads=told.append)
    monkeypatch.setattr(blas_threads, "_openblas", lambda: library)
    trainable = trainable_of(checkpoint("smolvlm_256m"), rank=2)
    gradients_of(trainable, [MicroBatches(trainable, examples, None).of([0, 1, 2], "")])
    assert told == [1, 7]
    told.clear()
    monkeypatch.setattr(batch_parts, "_TOKENS", 10**6)
    gradients_of(trainable, [MicroBatches(trainable, examples, None).of([0, 1, 2], "")])
    assert told == []
