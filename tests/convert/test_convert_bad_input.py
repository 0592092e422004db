"""What converting refuses: one line on stderr, status 2, and nothing half-written."""

import json
import os
import shutil
import struct
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import errors
from safetensors.numpy import load_file, save_file
from support.command_lines import assert_failed_midway, assert_refused, run
from support.editing import WEIGHTS, change_weights, copied

from mlx_smolvlm.convert import save, shards
from mlx_smolvlm.model.weights import INDEX

NORM = "model.text_model.norm.weight"
RESPONSE = SimpleNamespace(headers={}, request=None, status_code=403)
UP = "model.text_model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def source(checkpoint, tmp_path):
    """A copy of an unsharded checkpoint, to be damaged."""
    return copied(checkpoint("smolvlm_256m"), tmp_path / "source")


@pytest.fixture
def convert(monkeypatch, capsys, source, tmp_path):
    """A function from options to the run's result; the options win over the source and the target tmp_path / "out"."""
    paths = ("--hf-path", source, "--mlx-path", tmp_path / "out")
    return lambda *options: run(monkeypatch, capsys, "convert", *paths, *options)


def with_header(content, data=b""):
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-1],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:7],
        lambda whole: struct.pack("<Q", 2**62) + whole[8:],
        lambda whole: with_header({NORM: {"dtype": "F32", "shape": [96], "data_offsets": [0, 384]}}, bytes(100)),
        lambda whole: with_header({NORM: {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}, bytes(4)),
    ],
    ids=["last byte", "half", "length only", "endless header", "more than the file", "more than the world"],
)
def test_weight_files_that_claim_more_than_they_hold_are_named(convert, source, tmp_path, damage):
    (source / WEIGHTS).write_bytes(damage((source / WEIGHTS).read_bytes()))
    assert_refused(convert("-q"), "model.safetensors is truncated or not a safetensors file")
    assert os.listdir(tmp_path) == ["source"]


def test_a_truncated_shard_is_named(convert, checkpoint, tmp_path):
    sharded = copied(checkpoint("smolvlm2_2b"), tmp_path / "sharded")
    shard = max(sharded.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert_refused(convert("--hf-path", sharded), f"{shard.name} is truncated")
    assert sorted(os.listdir(tmp_path)) == ["sharded", "source"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [NORM, UP])
@pytest.mark.parametrize("options", [(), ("-q", "--q-group-size", "32"), ("--dtype", "float16")])
def test_a_tensor_that_is_not_finite_is_named(convert, source, tmp_path, name, value, options):
    def spoil(weights):
        weights[name].reshape(-1)[-1] = value

    change_weights(source, spoil)
    mlx_name = name.replace("model.text_model.", "language_model.")
    assert_failed_midway(convert(*options), f"{mlx_name} holds values that are not finite")
    assert os.listdir(tmp_path) == ["source"]


def test_weights_beyond_float16_are_named(convert, source, tmp_path):
    def enlarge(weights):
        weights[UP][0, 0] = 1e5

    change_weights(source, enlarge)
    assert_failed_midway(
        convert("--dtype", "float16"),
        "up_proj.weight has values too large for mlx.core.float16; choose another --dtype",
    )
    assert os.listdir(tmp_path) == ["source"]
    assert convert("--dtype", "bfloat16").status == 0


def collide_in_two_files(source):
    save_file({NORM: load_file(source / WEIGHTS)[NORM]}, source / "more.safetensors")


def collide_in_two_layouts(source):
    change_weights(source, lambda weights: weights.update({"language_model.norm.weight": weights[NORM]}))


@pytest.mark.parametrize(
    ("collide", "problem"),
    [
        (collide_in_two_files, "holds more.safetensors beside model.safetensors"),
        (collide_in_two_layouts, "language_model.norm.weight is both in"),
    ],
)
def test_names_that_collide_are_refused(convert, source, tmp_path, collide, problem):
    collide(source)
    assert_refused(convert("-q"), problem)
    assert os.listdir(tmp_path) == ["source"]


def test_a_disk_without_room_is_refused_before_the_work(convert, tmp_path, monkeypatch):
    monkeypatch.setattr(save.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**6))
    assert_refused(convert(), "0.00 GB free, but 0.07 GB are needed")
    assert os.listdir(tmp_path) == ["source"]


def test_a_disk_that_fills_up_leaves_nothing(convert, tmp_path, monkeypatch):
    write, calls = shards._write, []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) > 20:
            raise OSError(28, "No space left on device")
        write(*arguments)

    monkeypatch.setattr(shards, "_write", full)
    assert_failed_midway(convert("-q", "--q-group-size", "32"), "No space left on device: ")
    assert os.listdir(tmp_path) == ["source"]


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("source", "is the source itself"),
        ("source/", "is the source itself"),
        ("link", "is the source itself"),
        ("source/within", "is inside the source"),
        ("source/a/b", "is inside the source"),
        ("link/within", "is inside the source"),
        (".", "holds the source"),
        ("source/config.json", "is inside the source"),
        ("", "--mlx-path is empty"),
        ("x" * 300, "File name too long"),
        ("a\0b", "null"),
    ],
)
@pytest.mark.parametrize("options", [(), ("--force",)])
def test_targets_that_would_cost_the_source_are_refused(
    convert, source, tmp_path, monkeypatch, target, problem, options
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(source)
    before = {file: file.read_bytes() for file in source.iterdir()}
    assert_refused(convert("--mlx-path", target, *options), problem)
    assert {file: file.read_bytes() for file in source.iterdir()} == before
    assert sorted(os.listdir(tmp_path)) == ["link", "source"]


def test_force_replaces_a_checkpoint(convert, tmp_path):
    assert convert().status == 0
    (tmp_path / "out" / "stale.txt").write_text("of the old one", encoding="utf-8")
    assert_refused(convert("-q", "--q-group-size", "32"), "replace it with --force")
    assert (tmp_path / "out" / "stale.txt").exists()
    assert convert("-q", "--q-group-size", "32", "--force").status == 0
    assert not (tmp_path / "out" / "stale.txt").exists()
    assert sorted(os.listdir(tmp_path)) == ["out", "source"]


def test_force_replaces_nothing_else(convert, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine", encoding="utf-8")
    assert_refused(convert("--force"), "is no checkpoint; --force replaces checkpoints only")
    assert os.listdir(tmp_path / "out") == ["thesis.txt"]


def test_a_failure_under_force_keeps_the_old_checkpoint(convert, source, tmp_path):
    assert convert().status == 0
    before = (tmp_path / "out" / WEIGHTS).read_bytes()
    change_weights(source, lambda weights: weights.update({NORM: weights[NORM] * np.nan}))
    assert_failed_midway(convert("--force"), "norm.weight holds values that are not finite")
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["out", "source"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--q-vision", "8"), "--q-vision asks for quantization; add -q"),
        (("--skip", "*"), "--skip asks for quantization; add -q"),
        (("--q-recipe", "mixed_3_6"), "--q-recipe asks for quantization; add -q"),
        (("-q", "--q-vision", "7"), "q-bits is 7"),
        (("-q", "--q-vision", "4bit"), "'4bit' is no format"),
        (("-q", "--q-connector", "-1"), "'-1' is no format"),
        (("-q", "--q-embeddings", ""), "'' is no format"),
        (("-q", "--q-embeddings", "10000000000000000000000"), "q-bits is 10000000000000000000000"),
        (("-q", "--q-group-size", "99999999999999999999"), "q-group-size is 99999999999999999999"),
        (("-q", "--q-recipe", "mixed_1_2"), "invalid choice"),
        (("-q", "--q-recipe", "mixed_3_6", "--q-bits", "4"), "exclude each other"),
        (("-q", "--q-recipe", "mixed_3_6", "--q-mode", "mxfp8"), "leave q-mode mxfp8 out"),
        (("-q", "--skip", "lm_head"), "matches no layer"),
        (("-q", "-d"), "exclude each other"),
        (("-d",), "is not quantized: nothing to dequantize"),
        (("--upload-repo", "no such/name/at all"), "Repo id"),
        (("--adapter-path", "no such folder"), "no folder"),
    ],
)
def test_absurd_options_are_refused(convert, tmp_path, options, problem):
    assert_refused(convert(*options), problem)
    assert os.listdir(tmp_path) == ["source"]


@pytest.mark.parametrize("option", ["--hf-path", "--adapter-path"])
@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (errors.GatedRepoError("403", response=RESPONSE), "is gated: accept its terms"),
        (errors.RepositoryNotFoundError("401", response=RESPONSE), "no such repository on the Hub"),
        (errors.RevisionNotFoundError("404 Client Error", response=RESPONSE), "has no branch, tag or commit"),
        (errors.LocalEntryNotFoundError("offline"), "the Hub cannot be reached"),
    ],
)
def test_repositories_that_do_not_open_are_explained(convert, tmp_path, monkeypatch, option, error, problem):
    def snapshot_download(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert_refused(convert(option, "owner/name"), problem)
    assert os.listdir(tmp_path) == ["source"]


def test_pickled_weights_are_refused(convert, source, tmp_path):
    (source / WEIGHTS).rename(source / "pytorch_model.bin")
    assert_refused(convert(), "only pickled weights (pytorch_model.bin)")
    assert os.listdir(tmp_path) == ["source"]


def test_an_index_that_names_a_missing_shard_is_refused(convert, source, tmp_path):
    shutil.move(source / WEIGHTS, source / "model-00001-of-00002.safetensors")
    weight_map = {NORM: "model-00001-of-00002.safetensors", UP: "model-00002-of-00002.safetensors"}
    (source / INDEX).write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    assert_refused(convert(), "lacks model-00002-of-00002.safetensors")
    assert os.listdir(tmp_path) == ["source"]
