"""What a configuration of PEFT's leaves out of its file, as PEFT would."""

import numpy as np
import pytest
from support.made_adapters import GATE, peft_tensors, write_folder, write_peft

from mlx_smolvlm.model.adapters import path_patterns
from mlx_smolvlm.model.adapters.adapter_files import read_adapter

VISION = "model.vision_model.encoder.layers.0.self_attn.q_proj"
PATH = "language_model.layers.1.mlp.up_proj"
SHAPES = {GATE: (160, 96), VISION: (32, 32)}
PLAIN = {"target_modules": ["q_proj", "gate_proj"]}


@pytest.mark.parametrize(
    "fields",
    [
        PLAIN,
        {"target_modules": None},
        {"target_modules": "ALL-LINEAR"},
        {"target_modules": r".*(text_model|vision_model).*\.(q|gate)_proj$"},
        {"target_modules": r"(?!nothing).*"},  # of a kind that is not compared
        {**PLAIN, "exclude_modules": ["k_proj"], "modules_to_save": ["lm_head"]},
        {**PLAIN, "layers_to_transform": [0, 1], "layers_pattern": ["layers"]},
        {"target_modules": [GATE, VISION], "layers_to_transform": 7},  # whole paths are taken whatever their layer
    ],
)
def test_configurations_that_fit_their_files_are_read(tmp_path, fields):
    assert len(read_adapter(write_peft(tmp_path / "adapter", SHAPES, **fields)).updates) == 2


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"target_modules": ["q_proj"]}, f"target_modules .*leaves out {GATE}"),
        ({"target_modules": []}, f"target_modules .*leaves out {GATE}"),
        ({"target_modules": "gate_proj"}, f"target_modules .*leaves out {GATE}"),  # of the whole path
        ({**PLAIN, "exclude_modules": r".*vision.*"}, f"exclude_modules .*leaves out {VISION}"),
        ({**PLAIN, "modules_to_save": ["vision_model"]}, f"modules_to_save .*leaves out {VISION}"),
        ({**PLAIN, "layers_to_transform": 1}, f"layers_to_transform 1 leaves out {VISION}"),
        ({**PLAIN, "layers_to_transform": [0, 1], "layers_pattern": "h"}, f"layers_to_transform .*leaves out {GATE}"),
        ({**PLAIN, "layers_pattern": "layers"}, "layers_pattern has no effect without layers_to_transform"),
        (
            {"target_modules": ".*", "layers_to_transform": 1},
            "layers_to_transform and layers_pattern need",
        ),
        ({"target_modules": "("}, "target_modules .* is no regular expression"),
        ({"target_modules": 3}, "target_modules is 3, expected names"),
        ({**PLAIN, "modules_to_save": "lm_head"}, "modules_to_save is 'lm_head', expected names"),
        ({**PLAIN, "layers_to_transform": "1"}, "layers_to_transform is '1', expected numbers"),
        ({**PLAIN, "kasa_config": {}}, "kasa_config {} is not supported"),
    ],
)
def test_configurations_that_leave_out_layers_of_their_files_are_refused(tmp_path, fields, problem):
    with pytest.raises(ValueError, match=rf"adapter_config.json: {problem}") as caught:
        read_adapter(write_peft(tmp_path / "adapter", SHAPES, **fields))
    assert "\n" not in str(caught.value)


def test_an_expression_that_takes_too_long_is_not_compared(tmp_path, monkeypatch):
    folder = write_peft(tmp_path / "adapter", SHAPES, target_modules="nothing")
    monkeypatch.setattr(path_patterns, "MAX_STEPS_IN_ALL", -1)
    assert len(read_adapter(folder).updates) == 2


def test_whole_weights_of_a_layer_that_is_adapted_are_refused(tmp_path):
    folder = write_peft(tmp_path / "adapter", SHAPES)
    tensors = {f"base_model.model.{name}": array for name, array in peft_tensors(folder).items()}
    up = GATE.replace("gate_proj", "up_proj")
    tensors[f"base_model.model.{up}.weight"] = np.zeros((160, 96), np.float32)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": [GATE, VISION]}
    assert f"{PATH}.weight" in read_adapter(write_folder(tmp_path / "whole", config, tensors)).replaced
    config["target_modules"] = "all-linear"
    with pytest.raises(ValueError, match=f"target_modules 'all-linear' adapts {up}, but the file holds its weights"):
        read_adapter(write_folder(tmp_path / "both", config, tensors))
    config["modules_to_save"] = ["up_proj"]
    assert len(read_adapter(write_folder(tmp_path / "saved", config, tensors)).replaced) == 1
