"""Small runs come out as with torch, PEFT and TRL: what counts, losses, norms, and the adapter after some steps."""

import numpy as np
import pytest
from support.finetuning import PREFERENCES, RECIPE, SHOWN, recorded, write_adapter, write_preferences
from support.training import examples_of, trainable_of, write_rows

import mlx_smolvlm
from mlx_smolvlm.model.adapters.adapter_export import peft_files
from mlx_smolvlm.train.dataset.examples import make_example
from mlx_smolvlm.train.dataset.preference_rows import read_preference
from mlx_smolvlm.train.dataset.row_forms import read_row
from mlx_smolvlm.train.dataset.row_media import RowMedia
from mlx_smolvlm.train.dataset.training_rows import raise_error, rows_as
from mlx_smolvlm.train.learning.batches import StepPlan
from mlx_smolvlm.train.learning.micro_batches import MicroBatches
from mlx_smolvlm.train.learning.optimization import gradients_of
from mlx_smolvlm.train.learning.preferences import log_ratios
from mlx_smolvlm.train.learning.step_memory import MemoryPlan
from mlx_smolvlm.train.learning.stored_features import StoredFeatures
from mlx_smolvlm.train.run_data import RunData
from mlx_smolvlm.train.training import TrainingRun


def run_of(trainable, recipe, examples):
    """A run over all rows, and its micro-batches."""
    per_unit = 2 if recipe.preference else 1
    data = RunData(examples, [], per_unit, len(examples) // per_unit, 0, "")
    features = StoredFeatures(trainable.model, None) if trainable.encoder_is_frozen else None
    batches = MicroBatches(trainable, examples, features, are_pairs=recipe.preference)
    plan = StepPlan(data.lengths, recipe.batch_size, shuffle=False)
    memory = MemoryPlan(400, False)
    options = {"num_steps": recipe.steps, "save_every": 99}
    return TrainingRun(trainable, recipe, data, batches, plan, memory, None, **options)


def assert_like(trainable, tensors):
    """Entries move by about 1e-2; AdamW divides by the gradient's own size, so noise counts where that is tiny."""
    _, found = peft_files(trainable.adapter(None), None)
    assert found.keys() == tensors.keys()
    for name, values in tensors.items():
        array = np.array(found[name]).reshape(-1)
        np.testing.assert_allclose(array[:: -(-array.size // SHOWN)], values, rtol=0, atol=1e-4, err_msg=name)


def test_what_counts_of_a_completion_is_what_trl_counts(checkpoint, tmp_path):
    _, processor = mlx_smolvlm.load(checkpoint("smolvlm_256m"))
    for number, row in enumerate(recorded()["completions"]):
        fields = {name: row[name] for name in ("prompt", "completion")}
        example = make_example(processor, read_row(fields, str(number), RowMedia(tmp_path)))
        assert example.input_ids.tolist() == row["input_ids"], number
        assert "".join(str(int(is_trained)) for is_trained in example.trained) == row["trained"], number


def test_steps_with_a_schedule_and_clipping_are_those_of_torch(checkpoint, tmp_path):
    base = checkpoint("smolvlm_256m")
    trainable = trainable_of(base, init_folder=write_adapter(tmp_path / "adapter"))
    run = run_of(trainable, RECIPE, examples_of(base, write_rows(tmp_path)))
    golden = recorded()["steps"]
    for step, record in enumerate(golden["records"]):
        gradients = gradients_of(trainable, run._micro_batches(step))
        assert gradients.loss == pytest.approx(record["loss"], rel=1e-4)
        assert gradients.norm == pytest.approx(record["gradient_norm"], rel=1e-3)
        assert run.optimization.learning_rate == pytest.approx(record["learning_rate"], abs=1e-9)
        run.optimization.update(gradients)
    assert_like(trainable, golden["tensors"])


def test_preferences_are_compared_with_the_adapter_that_is_continued_as_by_trl(checkpoint, tmp_path):
    write_rows(tmp_path)  # for its image
    base = checkpoint("smolvlm_256m")
    _, processor = mlx_smolvlm.load(base, dtype="float32", fuse=False)
    pairs = rows_as(read_preference, write_preferences(tmp_path), None, False, (), raise_error)
    options = mlx_smolvlm.MediaOptions(do_image_splitting=False)
    rows = [row for pair in pairs for row in (pair.chosen, pair.rejected)]
    examples = [make_example(processor, row, media_options=options) for row in rows]
    trainable = trainable_of(base, init_folder=write_adapter(tmp_path / "adapter", whole=False))
    run = run_of(trainable, PREFERENCES, examples)
    golden = recorded()["preferences"]
    for step, record in enumerate(golden["records"]):
        margins = []
        for batch in run._micro_batches(step):
            margins += (PREFERENCES.beta * (log_ratios(trainable, batch) - batch.reference)).tolist()
        gradients = gradients_of(trainable, run._micro_batches(step), run._losses)
        assert gradients.loss == pytest.approx(record["loss"], abs=1e-4)
        assert gradients.norm == pytest.approx(record["gradient_norm"], rel=1e-3)
        assert np.mean(margins) == pytest.approx(record["margin"], abs=1e-4)
        run.optimization.update(gradients)
    assert_like(trainable, golden["tensors"])
