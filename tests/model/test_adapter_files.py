"""Adapter files: what is known is read in every format, what is not known is refused by name."""

import json

import mlx.core as mx
import numpy as np
import pytest
from support.editing import copied, set_field
from support.made_adapters import PLAIN, Q, peft_tensors, write_folder, write_peft

from mlx_smolvlm.model.adapters.adapter_export import mlx_files, peft_files
from mlx_smolvlm.model.adapters.adapter_files import read_adapter

SHAPES = {Q: (96, 96)}
PATH = "language_model.layers.0.self_attn.q_proj"
NEW = {  # fields of PEFT 0.21 and of versions to come
    "auto_mapping": None,
    "peft_version": "0.21.2",
    "runtime_config": {"ephemeral_gpu_offload": False},
    "trainable_token_indices": None,
    "exclude_modules": ["out_proj"],
    "corda_config": None,
    "eva_config": {"rho": 2.0},
    "use_bdlora": False,
    "arrow_config": None,
    "kasa_config": None,
    "monteclora_config": None,
    "velora_config": None,
    "target_parameters": [],
    "ensure_weight_tying": False,
    "qalora_group_size": 16,
    "use_of_2030": False,
    "layers_to_transform": 0,
}


def product_of(folder) -> np.ndarray:
    """What an adapter adds to Q."""
    return np.array(read_adapter(folder).updates[PATH].product())


def test_fields_of_later_versions_that_are_off_change_nothing(tmp_path):
    plain = product_of(write_peft(tmp_path / "plain", SHAPES))
    assert np.array_equal(product_of(write_peft(tmp_path / "new", SHAPES, **NEW)), plain)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("use_bdlora", True),
        ("use_qalora", True),
        ("lora_bias", True),
        ("arrow_config", {"top_k": 3}),
        ("kasa_config", {"beta": 1e-4}),
        ("monteclora_config", {"samples": 4}),
        ("velora_config", {"rank": 1}),
        ("trainable_token_indices", [3, 5]),
        ("target_parameters", ["experts.gate"]),
        ("alora_invocation_tokens", [1]),
        ("layer_replication", [[0, 2]]),
        ("megatron_config", {"tensor_parallel": 2}),
        ("bias", "lora_only"),
        ("bias", None),
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", 1),
        ("use_of_2030", True),
        ("scale_of_2030", 0.5),
        ("use_dora", "no"),
    ],
)
def test_what_is_not_known_to_be_neutral_is_refused_by_name(tmp_path, field, value):
    folder = write_peft(tmp_path / "adapter", SHAPES, **{field: value})
    with pytest.raises(ValueError, match=rf"adapter_config.json: {field}\b") as caught:
        read_adapter(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tensor", ["lora_A.weight", "lora_B.weight"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_adapter_with_values_that_are_not_finite_is_refused(tmp_path, tensor, value):
    tensors = {f"base_model.model.{name}": array for name, array in peft_tensors(PLAIN).items()}
    name = f"base_model.model.{Q}.{tensor}"
    tensors[name][0, 0] = value
    config = json.loads((PLAIN / "adapter_config.json").read_text())
    with pytest.raises(ValueError, match=rf"{name} holds values that are not finite"):
        read_adapter(write_folder(tmp_path / "adapter", config, tensors))


def in_mlx(tmp_path, config, names=("lora_a", "lora_b"), prefix="language_model."):
    """The adapter of `write_peft(SHAPES)` as another program writes it; its product has scaling 2."""
    peft = peft_tensors(write_peft(tmp_path / "peft", SHAPES))
    pairs = zip(names, ("A", "B"), strict=True)
    path = f"{prefix}layers.0.self_attn.q_proj"
    tensors = {f"{path}.{name}": peft[f"{Q}.lora_{x}.weight"].T.copy() for name, x in pairs}
    return write_folder(tmp_path / "mlx", config, tensors)


MLX_LM = {"fine_tune_type": "lora", "num_layers": 16, "lora_parameters": {"rank": 2, "scale": 2.0, "dropout": 0.1}}


@pytest.mark.parametrize(
    ("config", "names", "prefix"),
    [
        (MLX_LM | {"learning_rate": 1e-5, "iters": 600}, ("lora_a", "lora_b"), "language_model."),
        (MLX_LM, ("lora_a", "lora_b"), "language_model.model."),
        (MLX_LM, ("lora_a", "lora_b"), "model."),
        ({"rank": 2, "alpha": 2.0, "dropout": 0.1}, ("A", "B"), "language_model."),  # mlx-vlm before 0.7
    ],
)
def test_adapters_of_mlx_lm_and_mlx_vlm_are_read(tmp_path, config, names, prefix):
    found = product_of(in_mlx(tmp_path, config, names, prefix))
    assert np.allclose(found, product_of(tmp_path / "peft"), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"fine_tune_type": "prefix"}, "fine_tune_type is 'prefix', expected one of lora, dora, full"),
        ({"fine_tune_type": "dora"}, "fine_tune_type is 'dora', which does not fit the tensors of"),
        ({"use_of_2030": True}, "use_of_2030 True is not supported"),
        ({"lora_parameters": {"rank": 2}}, "lora_parameters has no 'scale'"),
        ({"lora_parameters": {"rank": 3, "scale": 1.0}}, "rank 3 is stated, but the matrices of .* have 2"),
        ({"lora_parameters": {"rank": 2, "scale": 1e12}}, "the scale is 1000000000000.0, expected a number below"),
        ({"lora_parameters": {"rank": 2, "scale": 1.0, "use_x": 1}}, "use_x 1 is not supported"),
    ],
)
def test_configurations_of_mlx_lm_are_checked_as_strictly(tmp_path, change, problem):
    with pytest.raises(ValueError, match=problem):
        read_adapter(in_mlx(tmp_path, MLX_LM | change))


@pytest.mark.parametrize("case", ["plain", "patterns", "dora"])
def test_exported_adapters_mean_the_same(tmp_path, case):
    """PEFT -> mlx-lm -> PEFT: every product, magnitude and whole tensor."""
    first = read_adapter(PLAIN.parent / case)
    config, tensors = mlx_files(first, None)
    arrays = {name: np.array(array) for name, array in tensors.items()}
    second = read_adapter(write_folder(tmp_path / "mlx", config, arrays))
    config, tensors = peft_files(second, None)
    assert config["base_model_name_or_path"] == "owner/base"  # as in the first
    third = read_adapter(write_folder(tmp_path / "peft", config, {name: np.array(x) for name, x in tensors.items()}))
    for other in (second, third):
        assert other.updates.keys() == first.updates.keys()
        assert other.replaced.keys() == first.replaced.keys()
        for path, update in first.updates.items():
            assert mx.allclose(other.updates[path].product(), update.product(), atol=1e-6), path
            assert (other.updates[path].magnitude is None) == (update.magnitude is None)
        for name, array in first.replaced.items():
            assert mx.array_equal(other.replaced[name], array)


def test_weight_tying_is_refused_where_it_matters(tmp_path):
    folder = copied(PLAIN, tmp_path / "adapter")
    set_field(folder / "adapter_config.json", True, "ensure_weight_tying")
    read_adapter(folder)  # no embeddings, no head
    folder = write_peft(tmp_path / "head", {"lm_head": (443, 96)}, ensure_weight_tying=True)
    with pytest.raises(ValueError, match="ensure_weight_tying is not supported for embeddings and head"):
        read_adapter(folder)
