"""LoRA adapters: merged as PEFT merges them (goldens by make_adapter_goldens.py), or refused with a reason."""

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.command_lines import assert_refused, run
from support.editing import WEIGHTS, copied, set_field
from support.golden_cases import GOLDENS
from support.make_adapter_goldens import BASE, CASES, fingerprint
from tokenizers import Tokenizer

from mlx_smolvlm import load
from mlx_smolvlm.convert import QuantizationOptions, convert_checkpoint
from mlx_smolvlm.model.weights import mlx_name

ADAPTER_WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def convert(monkeypatch, capsys, checkpoint, tmp_path):
    """A function from an adapter's folder and options to the run's result; the target is tmp_path / "out"."""
    base = ("--hf-path", checkpoint(BASE), "--mlx-path", tmp_path / "out")
    return lambda adapter, *options: run(monkeypatch, capsys, "convert", *base, "--adapter-path", adapter, *options)


@pytest.fixture
def adapter(tmp_path):
    """A copy of the plain adapter, to be changed."""
    return copied(GOLDENS / "adapters" / "plain", tmp_path / "adapter")


def change(adapter, edit):
    tensors = load_file(adapter / ADAPTER_WEIGHTS)
    edit(tensors)
    save_file(tensors, adapter / ADAPTER_WEIGHTS)


@pytest.mark.parametrize("case", CASES)
def test_adapters_merge_as_by_peft(checkpoint, tmp_path, case):
    convert_checkpoint(checkpoint(BASE), tmp_path / "out", adapter_path=GOLDENS / "adapters" / case)
    convert_checkpoint(checkpoint(BASE), tmp_path / "base")
    merged, base = (mx.load(str(tmp_path / name / WEIGHTS)) for name in ("out", "base"))
    golden = {mlx_name(name): value for name, value in np.load(GOLDENS / "adapters" / case / "merged.npz").items()}
    assert {name for name in base if not mx.array_equal(merged[name], base[name])} == set(golden)
    for name, expected in golden.items():
        found = fingerprint(np.array(merged[name]))
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max(), name  # float32, summed in another order


def test_the_base_may_be_the_one_that_the_adapter_names(monkeypatch, capsys, checkpoint, adapter, tmp_path):
    set_field(adapter / "adapter_config.json", str(checkpoint(BASE)), "base_model_name_or_path")
    options = ("--mlx-path", tmp_path / "out", "-q", "--q-group-size", "32")
    result = run(monkeypatch, capsys, "convert", "--adapter-path", adapter, *options)
    assert result.status == 0
    load(tmp_path / "out")


def test_embeddings_saved_with_the_adapter_replace_those_of_the_base(checkpoint, tmp_path):
    """PEFT saves them where the vocabulary may have changed, as the base layer of their own update."""
    adapter = copied(GOLDENS / "adapters" / "patterns", tmp_path / "adapter")
    own = "base_model.model.model.text_model.embed_tokens.base_layer.weight"
    change(adapter, lambda tensors: tensors.update({own: np.ones((443, 96), np.float32)}))
    convert_checkpoint(checkpoint(BASE), tmp_path / "ones", adapter_path=adapter)
    convert_checkpoint(checkpoint(BASE), tmp_path / "plain", adapter_path=GOLDENS / "adapters" / "patterns")
    convert_checkpoint(checkpoint(BASE), tmp_path / "base")
    ones, plain, base = (
        mx.load(str(tmp_path / name / WEIGHTS))["language_model.embed_tokens.weight"]
        for name in ("ones", "plain", "base")
    )
    assert mx.allclose(ones - 1, plain - base, atol=1e-5)


def test_a_quantized_base_is_quantized_again(checkpoint, tmp_path):
    convert_checkpoint(checkpoint(BASE), tmp_path / "eight", quantization=QuantizationOptions(8, 32))
    adapter = GOLDENS / "adapters" / "plain"
    with pytest.raises(ValueError, match=r"quantize it again \(-q\) or dequantize it \(-d\)"):
        convert_checkpoint(tmp_path / "eight", tmp_path / "out", adapter_path=adapter)
    convert_checkpoint(tmp_path / "eight", tmp_path / "out", adapter_path=adapter, dequantize=True)
    convert_checkpoint(checkpoint(BASE), tmp_path / "plain", adapter_path=adapter)
    name = "language_model.layers.0.self_attn.v_proj.weight"
    found, expected = (mx.load(str(tmp_path / folder / WEIGHTS))[name] for folder in ("out", "plain"))
    assert 0 < mx.abs(found - expected).max() < mx.abs(expected).max() / 100


UP = "base_model.model.model.text_model.layers.0.mlp.up_proj"
Q = "base_model.model.model.text_model.layers.0.self_attn.q_proj"
DAMAGE = {
    "a layer that is not there": (
        lambda t: t.update({f"base_model.model.lm.lora_{x}.weight": t[f"{Q}.lora_{x}.weight"] for x in "AB"}),
        "target_modules ['v_proj', 'proj', 'q_proj'] leaves out lm,",
    ),
    "another width": (
        lambda t: t.update({f"{Q}.lora_A.weight": np.zeros((2, 64), np.float32)}),
        "q_proj.weight is (96, 96), the adapter's is (96, 64)",
    ),
    "half of a pair": (lambda t: t.pop(f"{Q}.lora_B.weight"), "only one of the two LoRA matrices"),
    "matrices that do not meet": (
        lambda t: t.update({f"{Q}.lora_A.weight": np.zeros((3, 96), np.float32)}),
        "are no LoRA matrices of a linear layer",
    ),
    "another rank": (
        lambda t: t.update(
            {f"{Q}.lora_A.weight": np.zeros((3, 96), np.float32), f"{Q}.lora_B.weight": np.zeros((96, 3), np.float32)}
        ),
        "rank 2 is stated for model.text_model.layers.0.self_attn.q_proj, but its matrices have 3",
    ),
    "names of another program": (lambda t: t.update({"layers.0.lora_a": t[f"{Q}.lora_A.weight"]}), "does not begin"),
    "integers": (
        lambda t: t.update({f"{Q}.lora_A.weight": np.zeros((2, 96), np.int32)}),
        "expected floating point",
    ),
    "a tensor with no place": (
        lambda t: t.update({"base_model.model.custom_text_proj.weight": np.zeros((2, 2), np.float32)}),
        "custom_text_proj.weight is missing",
    ),
    "a stray magnitude": (lambda t: t.update({f"{Q}.lora_magnitude_vector": np.ones(96, np.float32)}), "use_dora is"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_tensors_without_their_place_are_refused(convert, adapter, tmp_path, damage):
    edit, problem = DAMAGE[damage]
    change(adapter, edit)
    assert_refused(convert(adapter), problem)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("peft_type", "LOHA", "peft_type is 'LOHA', only 'LORA'"),
        ("bias", "all", "bias 'all' is not supported; merge the adapter with PEFT"),
        ("init_lora_weights", "pissa_niter_4", "init_lora_weights 'pissa_niter_4' is not supported"),
        ("layer_replication", [[0, 2]], "layer_replication [[0, 2]] is not supported"),
        ("r", 0, "'r' is 0, expected a positive number"),
        ("lora_alpha", None, "has no 'lora_alpha'"),
        ("lora_alpha", "16", "'lora_alpha' is '16'"),
        ("alpha_pattern", {"q_proj": "x"}, "alpha_pattern is 'x'"),
        ("rank_pattern", {"(": 2}, "no regular expression"),
    ],
)
def test_variants_that_are_not_merged_are_refused(convert, adapter, tmp_path, field, value, problem):
    set_field(adapter / "adapter_config.json", value, field)
    assert_refused(convert(adapter), problem)
    assert not (tmp_path / "out").exists()


def test_pickled_adapters_are_never_read(convert, adapter):
    (adapter / ADAPTER_WEIGHTS).rename(adapter / "adapter_model.bin")
    assert_refused(convert(adapter), "pickled weights can run code")


@pytest.mark.parametrize("content", [b"", b"x" * 100])
def test_a_damaged_adapter_is_named(convert, adapter, content):
    (adapter / ADAPTER_WEIGHTS).write_bytes(content)
    assert_refused(convert(adapter), "adapter_model.safetensors")


def test_a_folder_that_is_no_adapter_is_refused(convert, checkpoint):
    assert_refused(convert(checkpoint(BASE)), "is a model, not an adapter; pass it as the model")


def test_an_adapter_without_a_base_asks_for_one(monkeypatch, capsys, adapter, tmp_path):
    set_field(adapter / "adapter_config.json", None, "base_model_name_or_path")
    result = run(monkeypatch, capsys, "convert", "--adapter-path", adapter, "--mlx-path", tmp_path / "out")
    assert_refused(result, "name it by --hf-path")


def test_an_adapter_trained_with_added_tokens_is_named(convert, checkpoint, adapter):
    """By the rows of its embeddings, or by its tokenizer where they fit into rows that pad the base's."""
    tokenizer = Tokenizer.from_file(str(checkpoint(BASE) / "tokenizer.json"))
    tokenizer.save(str(adapter / "tokenizer.json"))
    assert convert(adapter).status == 0
    tokenizer.add_tokens(["<point>", "<box>"])
    tokenizer.save(str(adapter / "tokenizer.json"))
    result = convert(adapter, "--force")
    assert_refused(result, "other tokens than the base's ('<box>', '<point>'), and holds no embeddings for")
    (adapter / "tokenizer.json").unlink()
    embeddings = load_file(checkpoint(BASE) / WEIGHTS)["model.text_model.embed_tokens.weight"]
    larger = np.concatenate([embeddings, embeddings[:3]])
    name = "base_model.model.model.text_model.embed_tokens.modules_to_save.weight"
    change(adapter, lambda tensors: tensors.update({name: larger}))
    assert_refused(convert(adapter, "--force"), "was trained with 3 tokens more than this base model has")
