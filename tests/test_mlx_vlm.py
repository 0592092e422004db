"""Folders converted here mean the same to mlx-vlm (goldens by make_mlx_vlm_goldens.py)."""

import json

import pytest
from support.make_mlx_vlm_goldens import CASES, CHECKPOINT, GOLDEN, our_answer

from mlx_smolvlm.convert import convert_checkpoint


@pytest.mark.parametrize("case", CASES)
def test_greedy_tokens_equal_those_of_mlx_vlm(tmp_path, case):
    convert_checkpoint(CHECKPOINT, tmp_path / "out", quantization=CASES[case], dtype="float32")
    expected = json.loads(GOLDEN.read_text(encoding="utf-8"))[case]
    assert len(set(expected)) > 1
    assert our_answer(tmp_path / "out") == expected
