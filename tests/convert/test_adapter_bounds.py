"""Adapters are checked as strictly as checkpoints, and their patterns matched in bounded time."""

import random
import re
import time

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.editing import copied, set_field
from support.golden_cases import GOLDENS

from mlx_smolvlm.model.adapters.adapter_files import read_adapter
from mlx_smolvlm.model.adapters.path_patterns import PathPattern

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


@pytest.fixture
def adapter(tmp_path):
    return copied(GOLDENS / "adapters" / "plain", tmp_path / "adapter")


def refused(adapter, problem: str) -> None:
    start = time.monotonic()
    with pytest.raises(ValueError, match=problem) as caught:
        read_adapter(adapter)
    assert time.monotonic() - start < 5
    assert len(str(caught.value)) < 700


def test_bytes_after_the_last_tensor_are_refused(adapter) -> None:
    with (adapter / WEIGHTS).open("ab") as file:
        file.write(b"\0" * 8)
    refused(adapter, "truncated or not a safetensors file")


def test_tensors_that_overlap_are_refused(adapter) -> None:
    content = (adapter / WEIGHTS).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], content[8 + length :]
    offsets = re.findall(rb'"data_offsets":\[\d+,\d+\]', header)
    header = header.replace(offsets[1], offsets[0])
    (adapter / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + data)
    refused(adapter, "truncated or not a safetensors file")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (".norm.weight", ".norm.modules_to_save.weight"),
        (".norm.base_layer.weight", ".norm.weight"),
        (".q_proj.lora_magnitude_vector", ".q_proj.lora_magnitude_vector.weight"),
    ],
)
def test_two_tensors_for_one_place_are_refused(adapter, first: str, second: str) -> None:
    tensors = load_file(adapter / WEIGHTS)
    for name in (first, second):
        tensors[f"base_model.model.model.text_model{name}"] = np.ones(4, np.float32)
    save_file(tensors, adapter / WEIGHTS)
    refused(adapter, "two tensors for one place")


@pytest.mark.parametrize("alpha", [10**400, 1e300, float("nan"), float("inf"), -(10**400), True])
@pytest.mark.parametrize("field", ["lora_alpha", "alpha_pattern"])
def test_a_scale_that_is_none_is_refused(adapter, field: str, alpha: object) -> None:
    set_field(adapter / CONFIG, alpha if field == "lora_alpha" else {".*proj": alpha}, field)
    refused(adapter, field)


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("(a|[^!])+" * 8 + "!", "more than 200000 steps|rank 1"),
        ("((((.*)*)*)*)*!", "more than 200000 steps|rank 1"),
        ("((.{1,900}){1,900}){1,900}!", "more than 200000 steps|rank 1"),
        ("x" * 100_000, "rank"),
        (".*" * 5000, "it has 10000 characters, the limit is 1000"),
        ("(?=a)", "not understood"),
        ("(a)\\1", "not understood"),
        ("a{5000}", "at most 1000 repetitions"),
        ("(" * 400, "nested more than 50 deep"),
        ("[", "not understood"),
        ("[z-a]", "bad character range"),
        ("a**", "not understood"),
    ],
)
def test_a_pattern_takes_bounded_time(adapter, pattern: str, problem: str) -> None:
    set_field(adapter / CONFIG, {pattern: 2, ".*": 1}, "rank_pattern")
    refused(adapter, problem)


ATOMS = ["a", "b", ".", "x1", r"\d", r"\.", "[ab]", "[^a]", "(a|b)", "(?:ab|x)", "(a|)", "^", "$"]


def test_patterns_match_as_by_re() -> None:
    choices = random.Random(7)
    matched = 0
    for _ in range(1500):
        atoms = choices.choices(ATOMS, k=choices.randrange(1, 5))
        repeats = choices.choices(["", "", "*", "+", "?", "{2}", "{1,}", "{0,2}", "*?"], k=len(atoms))
        pattern = "".join(a + (r if a not in "^$" else "") for a, r in zip(atoms, repeats, strict=True))
        text = "".join(choices.choices("ab.x1", k=choices.randrange(7)))
        expected = re.match(rf"(.*\.)?({pattern})$", text) is not None
        assert PathPattern(pattern).matches_end(text) == expected, (pattern, text)
        matched += expected
    assert matched > 100
    assert PathPattern(r"layers\.(1[0-9]|2\d)\..*_proj").matches_end("model.layers.12.self_attn.q_proj")
