"""What is trained: layers by name, new and continued adapters, whole parts."""

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file
from support.made_adapters import write_folder, write_peft
from support.training import batch_of, examples_of, trainable_of, write_rows

import mlx_smolvlm
from mlx_smolvlm.convert import QuantizationOptions, convert_checkpoint
from mlx_smolvlm.model.adapters.adapter_export import peft_files
from mlx_smolvlm.train.learning.forward import token_losses
from mlx_smolvlm.train.learning.optimization import Optimization, gradients_of
from mlx_smolvlm.train.learning.targets import hf_path
from mlx_smolvlm.train.recipe import Recipe

NOTEBOOK = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Q = "model.text_model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def examples(checkpoint, tmp_path_factory):
    return examples_of(checkpoint("smolvlm_256m"), write_rows(tmp_path_factory.mktemp("rows")))


def adapted(trainable):
    return {hf_path(name.rpartition(".")[0]) for name in trainable.parameters}


def trained(trainable, examples, num_steps=2):
    """After some steps of a high rate."""
    optimization = Optimization(trainable, Recipe(learning_rate=0.02), num_steps)
    for _ in range(num_steps):
        optimization.update(gradients_of(trainable, [batch_of(trainable, examples, [0, 3])]))
    return trainable


def saved(trainable, folder, **fields):
    config, tensors = peft_files(trainable.adapter("base"), "base")
    return write_folder(folder, config | fields, {name: np.array(array) for name, array in tensors.items()})


def test_an_adapter_whose_configuration_leaves_patterns_out_keeps_its_scale(checkpoint, tmp_path):
    base, value = checkpoint("smolvlm_256m"), Q.replace("q_proj", "v_proj")
    tensors = {}
    for module, rows, rank in ((Q, 96, 4), (value, 32, 2)):
        folder = write_peft(tmp_path / module, {module: (rows, 96)}, rank=rank)
        tensors |= load_file(folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "use_rslora": True, "target_modules": ["q_proj", "v_proj"]}
    given = write_folder(tmp_path / "given", config | {"rank_pattern": {"v_proj": 2}}, tensors)
    trainable = trainable_of(base, init_folder=given)
    again = saved(trainable, tmp_path / "again", **trainable.settings)
    ids = [1, 5, 9, 12]
    expected, found = (mlx_smolvlm.load(base, adapters=path, dtype="float32")[0](ids) for path in (given, again))
    assert mx.abs(expected - found).max().item() < 1e-5


def test_names_mean_what_they_mean_to_peft(checkpoint):
    base = checkpoint("smolvlm_256m")
    text = adapted(trainable_of(base))
    assert {name.rpartition(".")[2] for name in text} == set(NOTEBOOK)
    assert all(name.startswith("model.text_model.layers.") for name in text)
    named = adapted(trainable_of(base, targets=NOTEBOOK))
    assert {name.rpartition(".")[2] for name in named - text} == {"q_proj", "k_proj", "v_proj"}
    assert all(name.startswith("model.vision_model.encoder.layers.") for name in named - text)
    parts = adapted(trainable_of(base, train_vision=True, train_connector=True))
    assert parts == adapted(trainable_of(base, targets=("all-linear",)))
    assert adapted(trainable_of(base, targets=(Q, "lm_head"))) == {Q, "lm_head"}


@pytest.mark.parametrize(
    "options, problem",
    [
        ({"targets": ("q_prj",)}, "did you mean 'q_proj'?"),
        ({"targets": ("nothing",)}, "'nothing' matches no layer"),
        ({"targets": ("input_layernorm",)}, "a RMSNorm, which has no low-rank change"),
        ({"targets": ("patch_embedding",)}, "has no low-rank change"),
        ({"rank": 1000}, "--rank is 1000, but"),
        ({"method": "dora", "targets": ("embed_tokens",)}, "has no form for embed_tokens"),
    ],
)
def test_targets_that_cannot_be_adapted_are_refused(checkpoint, options, problem):
    with pytest.raises(ValueError, match=problem.replace("?", r"\?")):
        trainable_of(checkpoint("smolvlm_256m"), **options)


@pytest.mark.parametrize("method", ["lora", "dora", "rslora"])
def test_a_new_adapter_changes_nothing(checkpoint, examples, method):
    base = checkpoint("smolvlm_256m")
    losses = [
        token_losses(trainable, batch_of(trainable, examples, [0, 3]))
        for trainable in (trainable_of(base, method="full"), trainable_of(base, method=method, train_vision=True))
    ]
    assert mx.abs(losses[0] - losses[1]).max().item() < 1e-4


@pytest.mark.parametrize(
    "name, options",
    [
        ("smolvlm_256m", {"method": "dora", "train_vision": True, "train_connector": True}),
        ("tied", {"method": "rslora", "targets": ("q_proj", "fc1", "embed_tokens", "lm_head"), "rank": 2}),
    ],
)
def test_what_was_trained_is_what_is_loaded_unmerged(checkpoint, tmp_path, name, options):
    base = checkpoint(name)
    examples = examples_of(base, write_rows(tmp_path))
    trainable = trained(trainable_of(base, **options), examples)
    folder = saved(trainable, tmp_path / "adapter")
    model, _ = mlx_smolvlm.load(base, adapters=folder, dtype="float32")
    ids, tiles = examples[3].input_ids, examples[3].tiles()
    found, expected = model(ids, tiles), trainable.model(ids, tiles)
    plain = mlx_smolvlm.load(base, dtype="float32")[0](ids, tiles)
    assert mx.abs(found - expected).max().item() < 2e-4  # of logits up to 10, in float32
    assert mx.abs(found - plain).max().item() > 0.1


def test_an_adapter_is_continued_with_its_patterns_and_whole_tensors(checkpoint, examples, tmp_path):
    base = checkpoint("smolvlm_256m")
    gate = "model.text_model.layers.1.mlp.gate_proj"
    write_peft(tmp_path / "first", {Q: (96, 96), gate: (160, 96)}, alpha_pattern={"gate_proj": 6})
    random = np.random.RandomState(1)
    tensors = dict(mx.load(str(tmp_path / "first" / "adapter_model.safetensors")))
    whole = {"base_model.model.model.text_model.norm.weight": random.uniform(0.5, 1.5, 96).astype(np.float32)}
    whole[f"base_model.model.{Q}.base_layer.weight"] = random.normal(0, 0.1, (96, 96)).astype(np.float32)  # untrained
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "alpha_pattern": {"gate_proj": 6}}
    folder = write_folder(tmp_path / "first", config, {name: np.array(a) for name, a in tensors.items()} | whole)
    trainable = trainable_of(base, init_folder=folder)
    ids = examples[0].input_ids
    expected = mlx_smolvlm.load(base, adapters=folder, dtype="float32")[0](ids)
    assert mx.abs(trainable.model(ids) - expected).max().item() < 1e-4
    assert "language_model.norm.weight" in trainable.parameters
    assert len(trainable.parameters) == 5
    again = saved(trained(trainable, examples), tmp_path / "again", **trainable.settings)
    expected = mlx_smolvlm.load(base, adapters=again, dtype="float32")[0](ids)
    assert mx.abs(trainable.model(ids) - expected).max().item() < 1e-4
    with pytest.raises(ValueError, match="--rank is 3"):
        trainable_of(base, init_folder=folder, rank=3)
    with pytest.raises(ValueError, match="--target names other layers"):
        trainable_of(base, init_folder=folder, targets=("q_proj",))


def test_a_quantized_base_has_the_gradients_of_what_its_codes_stand_for(checkpoint, examples, tmp_path):
    quantized = tmp_path / "quantized"
    convert_checkpoint(checkpoint("smolvlm_256m"), quantized, quantization=QuantizationOptions(bits=4, group_size=32))
    convert_checkpoint(quantized, tmp_path / "plain", dequantize=True)
    with pytest.raises(ValueError, match="is quantized; train an adapter"):
        trainable_of(quantized, method="full")
    found = []
    for base in (quantized, tmp_path / "plain"):
        trainable = trainable_of(base, method="dora", rank=2)
        found.append(gradients_of(trainable, [batch_of(trainable, examples, [0, 3])]))
    for name, array in found[1].arrays.items():
        assert mx.abs(found[0].arrays[name] - array).max().item() < 1e-4 * found[1].norm, name
