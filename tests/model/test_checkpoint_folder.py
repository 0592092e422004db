"""Folders and files that are given as models or adapters, and are neither: what they are, and what to do."""

import json

import pytest
from support.editing import WEIGHTS, copied

from mlx_smolvlm import load
from mlx_smolvlm.model.adapters.adapter_files import read_adapter
from mlx_smolvlm.model.weights import weight_files

PEFT = {"peft_type": "LORA", "base_model_name_or_path": "owner/base", "r": 4, "lora_alpha": 8}
MLX = {"fine_tune_type": "lora", "num_layers": 16, "lora_parameters": {"rank": 8, "scale": 20.0}}


@pytest.fixture
def folder(tmp_path):
    """A function from files, by name, to a folder that holds them; dictionaries are written as JSON."""

    def make(**files):
        for name, content in files.items():
            path = tmp_path / "given" / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content) if isinstance(content, dict) else content, encoding="utf-8")
        return tmp_path / "given"

    return make


@pytest.fixture
def model(checkpoint, tmp_path):
    """A copy of an unsharded checkpoint."""
    return copied(checkpoint("smolvlm_256m"), tmp_path / "model")


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (
            {"adapter_config.json": PEFT, "adapter_model.safetensors": ""},
            r"is a LoRA adapter, not a model; pass its base .*--model owner/base --adapter-path \S*given",
        ),
        ({"adapter_model.safetensors": ""}, "is a LoRA adapter, not a model; .* --model BASE"),
        (
            {"adapter_config.json": MLX, "adapters.safetensors": ""},
            "is a LoRA adapter, not a model; .* --model BASE",
        ),
        ({"model-Q4_K_M.gguf": "", "README.md": ""}, r"a GGUF file \(model-Q4_K_M.gguf\), which llama.cpp reads; use"),
        (
            {"snapshots__abc__config.json": "{}", "refs__main": "abc"},
            "the Hub's cache; the model is in .*snapshots/abc",
        ),
        ({".cache__huggingface__download__x.incomplete": ""}, "not complete; finish it with: hf download NAME --local"),
        ({"checkpoint-500__config.json": "{}"}, "no config.json in .*, but in .*checkpoint-500; pass that folder"),
        ({"README.md": ""}, "no config.json in .*: not a model folder"),
    ],
)
def test_what_is_no_model_is_named(folder, files, problem):
    with pytest.raises(FileNotFoundError, match=problem) as caught:
        load(folder(**files))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("model.gguf", "is a GGUF file, which llama.cpp reads; use the checkpoint that it was made from"),
        ("pytorch_model.bin", "may hold pickled weights, which can run code when read"),
        ("model.safetensors", "is a file; name the folder of the model or adapter"),
        ("adapter_model.safetensors", "is a file of an adapter; name the folder that it is in"),
    ],
)
def test_a_file_is_no_model(folder, name, problem):
    with pytest.raises(FileNotFoundError, match=problem):
        load(folder(**{name: ""}) / name)


def test_a_gguf_that_is_not_there_is_no_hub_id():
    with pytest.raises(FileNotFoundError, match=r"GGUF files are read by llama\.cpp"):
        load("models/smolvlm-q4.gguf")


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"adapter_config.json": MLX}, "has no adapters.safetensors; save the adapter as safetensors"),
        ({"adapter_config.json": MLX, "adapters.npz": ""}, "no adapters.safetensors, but adapters.npz, which old"),
        ({"adapters.safetensors": ""}, "has no adapter_config.json, which says how its tensors are scaled"),
        ({"adapter_model.safetensors": ""}, "no adapter_config.json in .*, which says how its tensors are scaled"),
        ({"checkpoint-9__adapter_config.json": PEFT}, "but in .*checkpoint-9; pass that folder"),
        ({"config.json": "{}"}, "is a model, not an adapter; pass it as the model"),
        ({"README.md": ""}, "no adapter_config.json in .*: not an adapter of PEFT, mlx-lm or mlx-vlm"),
    ],
)
def test_what_is_no_adapter_is_named(folder, files, problem):
    with pytest.raises(FileNotFoundError, match=problem):
        read_adapter(folder(**files))


@pytest.mark.parametrize("stray", ["adapters.safetensors", "optimizer.safetensors", "model-00001-of-00002.safetensors"])
def test_files_beside_a_model_without_an_index_are_refused_by_name(model, stray):
    (model / stray).write_bytes((model / WEIGHTS).read_bytes())
    with pytest.raises(
        (ValueError, FileNotFoundError), match=rf"holds {stray} beside model.safetensors|lacks model-00002"
    ):
        load(model)


def test_shards_without_an_index_must_all_be_there(folder):
    given = folder(**{"model-00001-of-00003.safetensors": "", "model-00003-of-00003.safetensors": ""})
    with pytest.raises(FileNotFoundError, match=r"lacks model-00002-of-00003.safetensors, one of 3 files; download it"):
        weight_files(given)
    folder(**{"model-00002-of-00003.safetensors": ""})
    assert len(weight_files(given)) == 3
    folder(**{"optimizer.safetensors": ""})
    with pytest.raises(ValueError, match=r"holds optimizer.safetensors beside the numbered files"):
        weight_files(given)


def test_a_download_that_is_not_complete_says_how_to_finish_it(tmp_path):
    snapshot = tmp_path / "models--owner--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    step = "the download of owner/name is not complete; finish it with: hf download owner/name"
    with pytest.raises(FileNotFoundError, match=f"no config.json in .*: {step}"):
        load(snapshot)
    with pytest.raises(FileNotFoundError, match=f"no .safetensors files in .*: {step}"):
        weight_files(snapshot)
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FileNotFoundError, match=f"lacks model-00001-of-00002.safetensors, .*; {step}"):
        weight_files(snapshot)


def test_weights_of_an_adapter_beside_a_configuration_are_no_model(folder):
    with pytest.raises(FileNotFoundError, match="the weights of a LoRA adapter only"):
        weight_files(folder(**{"config.json": "{}", "adapter_model.safetensors": ""}))
