"""Checkpoints that claim more than they hold are refused before anything of that size is built."""

import json
import os
import time

import pytest
from safetensors.numpy import load_file, save_file
from support.editing import WEIGHTS, copied, set_field

from mlx_smolvlm import load
from mlx_smolvlm.model.json_fields import MAX_JSON_BYTES
from mlx_smolvlm.model.weights import MAX_HEADER_BYTES
from mlx_smolvlm.processor.chat_template import MAX_TEMPLATE_CHARS


@pytest.fixture
def folder(checkpoint, tmp_path):
    return copied(checkpoint("smolvlm_256m"), tmp_path / "model")


def refused(folder, problem: str, **options: str) -> None:
    start = time.monotonic()
    with pytest.raises(ValueError, match=problem) as caught:
        load(folder, **options)
    assert time.monotonic() - start < 5
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


ABSURD = {
    ("text_config", "num_hidden_layers"): 1_000_000,
    ("vision_config", "num_hidden_layers"): 1_000_000,
    ("text_config", "head_dim"): 2**31 - 1,
    ("text_config", "vocab_size"): 2**31 - 1,
    ("text_config", "intermediate_size"): 2**31 - 1,
    ("text_config", "hidden_size"): 2**30,
    ("vision_config", "intermediate_size"): 2**31 - 1,
}


@pytest.mark.parametrize("keys", ABSURD, ids=".".join)
def test_an_absurd_size_is_compared_with_the_files(folder, keys) -> None:
    set_field(folder / "config.json", ABSURD[keys], *keys)
    refused(folder, f"{ABSURD[keys]}.* is asked for, the files have" if keys[1] != "head_dim" else "head_dim")


@pytest.mark.parametrize("name", ["a" * 300, "a/" * 3000])
def test_a_name_that_no_folder_can_have_is_refused(name) -> None:
    with pytest.raises(FileNotFoundError, match=r"^no folder 'a") as caught:
        load(name)
    assert len(str(caught.value)) < 500


def test_a_revision_of_a_folder_is_refused(folder) -> None:
    refused(folder, "revision is 'v2', but .* is a folder, and only the Hub has revisions", revision="v2")


def test_weights_that_are_a_pipe_are_not_waited_for(folder) -> None:
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)
    refused(folder, "is a folder, a pipe or a device, not a safetensors file; remove it")


def test_a_value_is_not_quoted_at_length(folder) -> None:
    set_field(folder / "config.json", "x" * 1_000_000, "model_type")
    refused(folder, "model_type is 'xxx")
    set_field(folder / "config.json", "smolvlm", "model_type")
    set_field(folder / "config.json", [1] * 100_000, "text_config", "num_attention_heads")
    refused(folder, r"num_attention_heads' is \[1, 1, .*, \.\.\.\], expected int")


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("config.json", MAX_JSON_BYTES),
        ("generation_config.json", MAX_JSON_BYTES),
        ("tokenizer_config.json", MAX_JSON_BYTES),
        ("preprocessor_config.json", MAX_JSON_BYTES),
        ("model.safetensors.index.json", MAX_JSON_BYTES),
        ("chat_template.jinja", 4 * MAX_TEMPLATE_CHARS),
    ],
)
def test_a_sparse_side_file_is_refused_by_its_size(folder, name: str, limit: int) -> None:
    with (folder / name).open("ab") as file:
        file.truncate(30 * 10**9)
    refused(folder, f"{name} has 30000000000 bytes, the limit for this file is {limit}")


def with_header(folder, change) -> None:
    """Change the header of the weights, as JSON text, and keep the data."""
    content = (folder / WEIGHTS).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = change(content[8 : 8 + length].rstrip())
    header += b" " * (-len(header) % 8)
    (folder / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])


def test_a_header_out_of_proportion_is_refused(folder) -> None:
    with (folder / WEIGHTS).open("r+b") as file:
        file.write((MAX_HEADER_BYTES + 1).to_bytes(8, "little"))
        file.truncate(30 * 10**9)
    refused(folder, "truncated or not a safetensors file|has a header of")


def test_one_name_twice_is_refused(folder) -> None:
    entry = json.dumps({"dtype": "F32", "shape": [], "data_offsets": [0, 4]}).encode()
    with_header(folder, lambda header: header[:-1] + b', "a": ' + entry + b', "a": ' + entry + b"}")
    refused(folder, "a is there twice")


def test_bytes_after_the_last_tensor_are_refused(folder) -> None:
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"\0" * 8)
    refused(folder, "truncated or not a safetensors file")


def test_a_long_name_is_refused(folder) -> None:
    weights = load_file(folder / WEIGHTS)
    weights["x" * 100_000] = weights.pop(next(iter(weights)))
    save_file(weights, folder / WEIGHTS)
    refused(folder, "name has 100000 characters")
