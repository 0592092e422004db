"""Losses, gradients and steps are those of torch with PEFT and TRL, on the goldens' checkpoint and adapters."""

import mlx.core as mx
import numpy as np
import pytest
from support.training_goldens import ADAPTERS, TRAINING_GOLDENS, expected, write_golden_adapter, write_golden_base

import mlx_smolvlm
from mlx_smolvlm.model.adapters.adapter_export import peft_files
from mlx_smolvlm.train.dataset.examples import make_example
from mlx_smolvlm.train.dataset.training_rows import read_rows
from mlx_smolvlm.train.learning.batches import StepPlan
from mlx_smolvlm.train.learning.forward import token_losses
from mlx_smolvlm.train.learning.micro_batches import MicroBatches
from mlx_smolvlm.train.learning.optimization import gradients_of
from mlx_smolvlm.train.learning.step_memory import MemoryPlan
from mlx_smolvlm.train.learning.stored_features import StoredFeatures
from mlx_smolvlm.train.learning.trainable import Trainable
from mlx_smolvlm.train.recipe import Recipe
from mlx_smolvlm.train.run_data import RunData
from mlx_smolvlm.train.training import TrainingRun


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """Folder of the base, and the rows as examples."""
    base = write_golden_base(tmp_path_factory.mktemp("training") / "base")
    _, processor = mlx_smolvlm.load(base, dtype="float32", fuse=False)
    rows = read_rows(TRAINING_GOLDENS / "rows.jsonl")
    return base, [make_example(processor, row) for row in rows]


def run_of(golden, name, folder, num_steps=10, max_tokens=2000):
    """A run that continues an adapter, with the reference's options."""
    base, examples = golden
    adapter = folder / name
    if not adapter.exists():
        write_golden_adapter(adapter, base, name)
    recipe = Recipe(steps=num_steps, batch_size=8, learning_rate=1e-3, shuffle=False)
    trainable = Trainable(mlx_smolvlm.load(base, dtype="float32", fuse=False)[0], recipe, adapter)
    features = StoredFeatures(trainable.model, None) if trainable.encoder_is_frozen else None
    data = RunData(examples, [], 1, len(examples), 0, "")
    plan = StepPlan(data.lengths, 8, shuffle=False)
    batches = MicroBatches(trainable, examples, features)
    run = TrainingRun(
        trainable, recipe, data, batches, plan, MemoryPlan(max_tokens, False), None, num_steps=num_steps, save_every=99
    )
    return trainable, run


def tensors_of(trainable, arrays):
    """Arrays by parameter, under the names and in the shapes of PEFT's files."""
    kept, trainable.parameters = trainable.parameters, arrays
    try:
        return {name: np.array(array) for name, array in peft_files(trainable.adapter(None), None)[1].items()}
    finally:
        trainable.parameters = kept


def test_tokens_and_what_counts_of_them_are_trls(golden):
    _, examples = golden
    assert [example.input_ids.tolist() for example in examples] == expected()["ids"]
    assert [np.flatnonzero(example.trained).tolist() for example in examples] == expected()["trained"]


def assert_golden_gradients(golden, name, folder):
    trainable, run = run_of(golden, name, folder)
    reference = expected()["runs"][name]
    gradients = gradients_of(trainable, run._micro_batches(0))
    assert gradients.loss == pytest.approx(reference["losses"][0], rel=1e-5)
    found = tensors_of(trainable, gradients.arrays)
    assert found.keys() == reference["tensors"].keys()
    for tensor, golden_tensor in reference["tensors"].items():
        norm, at = golden_tensor["norm"], golden_tensor["at"]
        assert np.linalg.norm(found[tensor]) == pytest.approx(norm, rel=1e-4), tensor
        # sums in another order: 4e-6 of the norm were seen
        np.testing.assert_allclose(found[tensor].reshape(-1)[at], golden_tensor["gradient"], rtol=0, atol=1e-4 * norm)
    return trainable, run, gradients


def test_losses_of_the_shortest_rows_are_those_of_peft(golden, tmp_path):
    """Gradients of all rows are slow, below."""
    trainable, run = run_of(golden, "dora_text", tmp_path)
    rows = sorted(range(8), key=lambda row: len(golden[1][row].input_ids))[:3]
    sums = [token_losses(trainable, run._batches.of([row], "")).sum().item() for row in rows]
    expected_sums = [expected()["runs"]["dora_text"]["row_loss_sums"][row] for row in rows]
    np.testing.assert_allclose(sums, expected_sums, rtol=1e-5)


@pytest.mark.slow
def test_gradients_do_not_depend_on_how_rows_are_computed(golden, tmp_path):
    trainable, run, gradients = assert_golden_gradients(golden, "lora_notebook", tmp_path)
    run._memory = MemoryPlan(300, True)
    again = gradients_of(trainable, run._micro_batches(0), checkpoint=True)
    for name, array in gradients.arrays.items():
        difference = mx.abs(again.arrays[name] - array).max().item()
        assert difference < 1e-6, name


@pytest.mark.slow
@pytest.mark.parametrize("name", ADAPTERS)
def test_gradients_losses_and_steps_are_those_of_peft(golden, tmp_path, name):
    trainable, run, _ = assert_golden_gradients(golden, name, tmp_path)
    reference = expected()["runs"][name]
    sums = [token_losses(trainable, run._batches.of([row], "")).sum().item() for row in range(8)]
    np.testing.assert_allclose(sums, reference["row_loss_sums"], rtol=1e-5)
    for _ in range(10):
        gradients = gradients_of(trainable, run._micro_batches(0))
        assert gradients.loss == pytest.approx(reference["losses"][run.optimization.step], rel=1e-4)
        run.optimization.update(gradients)
    for tensor, array in tensors_of(trainable, trainable.parameters).items():
        golden_tensor = reference["tensors"][tensor]
        # AdamW divides by the gradient's own size, so noise counts where that is tiny; entries move by 1e-2
        np.testing.assert_allclose(array.reshape(-1)[golden_tensor["at"]], golden_tensor["step10"], rtol=0, atol=3e-4)
