"""Where float16 would overflow, found without computing in float16."""

import numpy as np
import pytest
from support.editing import change_weights, copied

from mlx_smolvlm import load
from mlx_smolvlm.convert.calibration import float16_warnings
from mlx_smolvlm.convert.calibration_data import score_samples
from mlx_smolvlm.convert.overflow import Risk, largest_activations, overflow_warnings
from mlx_smolvlm.convert.synthetic_samples import built_in_samples

pytestmark = pytest.mark.usefixtures("few_samples")
DOWN = "language_model.layers.1.mlp.down_proj"


@pytest.fixture
def loud(checkpoint, tmp_path):
    """A checkpoint whose silu(gate) * up is a hundred thousand times larger in one layer."""
    folder = copied(checkpoint("smolvlm_256m"), tmp_path / "loud")

    def amplify(weights):
        weights["model.text_model.layers.1.mlp.up_proj.weight"] *= np.float32(1e5)
        weights["model.text_model.layers.1.mlp.down_proj.weight"] *= np.float32(1e-5)

    change_weights(folder, amplify)
    return folder


def test_the_layer_that_would_overflow_is_named(loud):
    lines = float16_warnings(loud, None)
    assert any(line.startswith(f"float16 may overflow: {DOWN} has inputs of up to ") for line in lines)
    assert all(".layers.1.mlp." in line for line in lines)  # up_proj's output, and what follows from it


def test_a_quiet_checkpoint_gets_no_warning(checkpoint, trained_checkpoint):
    assert float16_warnings(checkpoint("smolvlm_256m"), None) == []
    assert float16_warnings(trained_checkpoint, None) == []


def test_inputs_and_outputs_of_every_part_are_seen(trained):
    risks = largest_activations(trained[0], score_samples(*trained, built_in_samples("test", 1, 1)))
    seen = {(risk.path, risk.where) for risk in risks}
    assert seen >= {
        ("vision_model.encoder.layers.0.mlp.fc2", "input"),
        ("connector.modality_projection.proj", "output"),
        ("language_model.layers.0.self_attn.o_proj", "input"),
        ("language_model.layers.3.mlp.down_proj", "input"),
        ("language_model.norm", "input"),
        ("language_model.lm_head", "output"),
    }
    assert [risk.largest for risk in risks] == sorted((risk.largest for risk in risks), reverse=True)


def test_the_margin_is_half_of_float16():
    risks = [Risk("a", "input", 32752.0), Risk("b", "output", 32751.0), Risk("c", "input", float("nan"))]
    assert [line.split()[3] for line in overflow_warnings(risks)] == ["a", "c"]


def test_a_checkpoint_that_cannot_run_is_passed_over_with_a_note(checkpoint, tmp_path):
    folder = copied(checkpoint("smolvlm_256m"), tmp_path / "base")
    (folder / "chat_template.json").unlink()
    (line,) = float16_warnings(folder, None)
    assert line.startswith("whether float16 is wide enough was not checked: ")
    assert load(folder)
