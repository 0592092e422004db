"""Digests of data and models: whatever changes a run's result changes them."""

import os
from io import BytesIO

import numpy as np
import pytest

from mlx_smolvlm import MediaOptions
from mlx_smolvlm.train.dataset.training_row import TrainingRow
from mlx_smolvlm.train.identity import data_digest, folder_digest


def digest_of(item, **options):
    row = TrainingRow("rows.jsonl:1", [{"role": "user", "content": [item, {"type": "text", "text": "What is it?"}]}])
    return data_digest([], [row], MediaOptions(**options))


@pytest.mark.parametrize(
    "item_of",
    [
        lambda file: {"type": "image", "image": str(file)},
        lambda file: {"type": "image_url", "image_url": {"url": str(file)}},
        lambda file: {"type": "image", "image": file.read_bytes()},
        lambda file: {"type": "image", "image": BytesIO(file.read_bytes())},  # as what lies in a table
    ],
)
def test_an_image_that_changes_is_noticed(tmp_path, item_of):
    file = tmp_path / "a.png"
    file.write_bytes(b"one")
    before = digest_of(item_of(file))
    assert digest_of(item_of(file)) == before
    file.write_bytes(b"two")
    assert digest_of(item_of(file)) != before


def test_options_of_images_are_noticed():
    assert digest_of({"type": "text"}, longest_edge=64) != digest_of({"type": "text"}, longest_edge=60)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    assert folder_digest(tmp_path, ["*.json"])


def test_a_layer_that_changes_within_a_large_file_is_noticed(tmp_path):
    weights = np.zeros(20 * 2**20, np.uint8)
    weights.tofile(tmp_path / "model.safetensors")
    before = folder_digest(tmp_path, ["*.safetensors"])
    weights[10 * 2**20 :][: 2**16] = 1
    weights.tofile(tmp_path / "model.safetensors")
    assert folder_digest(tmp_path, ["*.safetensors"]) != before
