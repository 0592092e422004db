"""Checkpoints load whole, in every layout, or are refused with the names of what is wrong."""

import json
import shutil
import struct
import threading
from types import SimpleNamespace

import huggingface_hub
import mlx.core as mx
import numpy as np
import pytest
from huggingface_hub import errors
from mlx.utils import tree_flatten
from support.editing import WEIGHTS, change_weights, copied, set_field
from support.golden_cases import golden_cases

from mlx_smolvlm import generate_text, load, stream_generate
from mlx_smolvlm.convert import QuantizationOptions, convert_checkpoint
from mlx_smolvlm.model.weights import INDEX

PROJECTION = "model.connector.modality_projection.proj.weight"
NORM = "model.text_model.norm.weight"
GOLDEN = golden_cases("smolvlm_256m")["text"]


@pytest.fixture
def folder(checkpoint, tmp_path):
    """A copy of the unsharded checkpoint."""
    return copied(checkpoint("smolvlm_256m"), tmp_path / "model")


def greedy(model, processor, messages=GOLDEN["messages"], max_tokens=32):
    return [step.token_id for step in stream_generate(model, processor, messages, max_tokens=max_tokens)]


def test_single_and_sharded_files_hold_the_same_model(checkpoint, folder):
    weights = mx.load(str(folder / WEIGHTS))
    (folder / WEIGHTS).unlink()
    names = sorted(weights)
    for number, half in enumerate((names[::2], names[1::2])):
        mx.save_safetensors(str(folder / f"part{number}.safetensors"), {name: weights[name] for name in half})
    index = {name: f"part{number % 2}.safetensors" for number, name in enumerate(names)}
    (folder / INDEX).write_text(json.dumps({"weight_map": index}), encoding="utf-8")
    one, many = (tree_flatten(load(path)[0].parameters()) for path in (checkpoint("smolvlm_256m"), folder))
    assert all(a == b and mx.array_equal(x, y) for (a, x), (b, y) in zip(one, many, strict=True))


def test_an_index_decides_which_files_count(folder):
    shutil.copy(folder / WEIGHTS, folder / "stale.safetensors")
    index = {"weight_map": {"lm_head.weight": WEIGHTS}}
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    assert greedy(*load(folder)) == GOLDEN["generated_ids"]


@pytest.mark.parametrize("quantization", [None, QuantizationOptions(4, 32), QuantizationOptions(8, 32)])
def test_folders_in_mlx_layout_load(checkpoint, tmp_path, quantization):
    convert_checkpoint(checkpoint("smolvlm_256m"), tmp_path / "mlx", quantization=quantization)
    tokens = greedy(*load(tmp_path / "mlx"))
    assert len(tokens) > 1
    if quantization is None:
        assert tokens == GOLDEN["generated_ids"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("quantize", [False, True])
def test_every_floating_parameter_has_the_type_asked_for(checkpoint, tmp_path, dtype, quantize):
    source = checkpoint("smolvlm_256m")
    if quantize:
        convert_checkpoint(source, tmp_path / "mlx", quantization=QuantizationOptions(4, 32))
        source = tmp_path / "mlx"
    parameters = tree_flatten(load(source, dtype=dtype)[0].parameters())
    kinds = {array.dtype for _, array in parameters if mx.issubdtype(array.dtype, mx.floating)}
    assert kinds == {getattr(mx, dtype)}
    assert any(array.dtype == mx.uint32 for _, array in parameters) == quantize


def test_an_unknown_dtype_is_refused_before_anything_is_read():
    with pytest.raises(ValueError, match=r"dtype is 'int8', expected one of bfloat16, float16, float32"):
        load("no such folder", dtype="int8")


def test_a_model_loaded_in_one_thread_answers_in_another(folder):
    model, processor = load(folder, dtype="float32")
    answers = []
    thread = threading.Thread(target=lambda: answers.append(greedy(model, processor)))
    thread.start()
    thread.join()
    assert answers == [GOLDEN["generated_ids"]]


CHANGES = {
    "missing": (lambda w: w.pop(NORM), r"missing language_model\.norm\.weight"),
    "extra": (lambda w: w.update(stray=w[NORM].copy()), "unexpected stray"),
    "misshaped": (lambda w: w.update({NORM: w[NORM][:-1].copy()}), r"norm\.weight is \(95,\), .* \(96,\)"),
    "transposed": (lambda w: w.update({PROJECTION: w[PROJECTION].T.copy()}), r"proj\.weight is \(512, 96\), .*\(96, 5"),
    "integers": (lambda w: w.update({NORM: w[NORM].astype(np.int32)}), r"norm\.weight has dtype .*int32"),
    "float64": (lambda w: w.update({NORM: w[NORM].astype(np.float64)}), "cannot be read by MLX: .*F64"),
    "both layouts": (lambda w: w.update({"language_model.norm.weight": w[NORM]}), "is both in"),
    "none": (lambda w: w.clear(), r"missing connector\.modality_projection.*; and \d+ more"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_do_not_fit_are_listed(folder, change):
    edit, problem = CHANGES[change]
    change_weights(folder, edit)
    with pytest.raises(ValueError, match=problem):
        load(folder)


def test_buffers_that_old_versions_saved_are_skipped(folder):
    buffers = {
        "model.text_model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32),
        "model.vision_model.embeddings.position_ids": np.arange(64)[None],
    }
    change_weights(folder, lambda w: w.update(buffers))
    assert greedy(*load(folder)) == GOLDEN["generated_ids"]


def header(content):
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-1],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:9],
        lambda whole: b"",
        lambda whole: b"<!doctype html><title>404</title>",
        lambda whole: b"version https://git-lfs.github.com/spec/v1\n",
        lambda whole: header(b"[" * 1000),
        lambda whole: header({NORM: {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 64]}}) + bytes(64),
        lambda whole: header({NORM: {"dtype": "F32", "shape": [16], "data_offsets": [4096, 4160]}}) + bytes(64),
    ],
)
def test_a_damaged_weight_file_is_named(folder, damage):
    (folder / WEIGHTS).write_bytes(damage((folder / WEIGHTS).read_bytes()))
    with pytest.raises(ValueError, match=r"model\.safetensors is truncated or not a safetensors file"):
        load(folder)


def test_a_missing_shard_is_named(checkpoint, tmp_path):
    folder = copied(checkpoint("smolvlm2_2b"), tmp_path / "model")
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {shard.name}"):
        load(folder)


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        ({}, "has no 'weight_map'"),
        ({"weight_map": {NORM: 5}}, "has no 'weight_map'"),
        ({"weight_map": {NORM: "../model/model.safetensors"}}, "names a file outside its folder"),
        ({"weight_map": {}}, "missing connector"),
    ],
)
def test_a_faulty_index_is_refused(folder, index, problem):
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ValueError, match=problem):
        load(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
def test_pickled_weights_are_never_read(folder, name):
    (folder / WEIGHTS).rename(folder / name)
    with pytest.raises(FileNotFoundError, match=f"only pickled weights .{name}"):
        load(folder)


def test_a_tied_checkpoint_may_hold_a_copy_of_its_head(checkpoint, tmp_path, loaded):
    folder = copied(checkpoint("tied"), tmp_path / "model")
    embeddings = "model.text_model.embed_tokens.weight"
    change_weights(folder, lambda w: w.update({"lm_head.weight": w[embeddings].copy()}))
    assert generate_text(*load(folder, dtype="float32"), "hi", max_tokens=8) == generate_text(
        *loaded("tied"), "hi", max_tokens=8
    )


@pytest.mark.parametrize("head", [lambda e: e + 1, lambda e: e[:-1].copy()])
def test_a_tied_checkpoint_with_another_head_is_refused(checkpoint, tmp_path, head):
    folder = copied(checkpoint("tied"), tmp_path / "model")
    change_weights(folder, lambda w: w.update({"lm_head.weight": head(w["model.text_model.embed_tokens.weight"])}))
    with pytest.raises(ValueError, match=r"lm_head\.weight differs from the embeddings"):
        load(folder)


def test_quantized_entries_that_cannot_be_built_are_refused(folder):
    set_field(folder / "config.json", {"group_size": 32, "bits": 4, "language_model.lm_head": 5}, "quantization")
    with pytest.raises(ValueError, match="cannot be built"):
        load(folder)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"<html>", b"\xff"])
def test_a_damaged_tokenizer_is_named(folder, content):
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a tokenizer"):
        load(folder)


def test_a_tokenizer_of_another_model_is_refused(checkpoint, folder):
    shutil.copy(checkpoint("idefics3") / "tokenizer.json", folder)
    with pytest.raises(ValueError, match=r"<image> is token \d+, but config\.json says image_token_id \d+"):
        load(folder)


def test_tokens_beyond_the_vocabulary_are_refused(loaded):
    """MLX reads whatever memory lies beyond the embeddings."""
    model, _ = loaded("smolvlm_256m")
    with pytest.raises(ValueError, match=r"token ids go from 0 to 100000, but the model knows 443 tokens"):
        model.input_embeddings([0, 100_000], None)


@pytest.mark.parametrize("name", ["", "no such folder", "a/b/c", "~nobody-of-this-name/model", "../owner/name", "ü/ß"])
def test_what_is_neither_folder_nor_hub_id_is_refused(name):
    with pytest.raises(FileNotFoundError):
        load(name)


def test_a_file_in_place_of_a_folder_is_refused(folder):
    with pytest.raises(FileNotFoundError, match="is a file; name the folder"):
        load(folder / "config.json")


RESPONSE = SimpleNamespace(headers={}, request=None, status_code=403)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.GatedRepoError("403\n\nrestricted", response=RESPONSE), "is gated: accept its terms"),
        (errors.RepositoryNotFoundError("401\n\nnot found", response=RESPONSE), "no such repository on the Hub"),
        (errors.RevisionNotFoundError("404 Client Error.\n\nx", response=RESPONSE), "has no branch, tag or commit"),
        (errors.LocalEntryNotFoundError("offline"), "the Hub cannot be reached"),
        (errors.HFValidationError("bad id"), "could not download owner/name from the Hub: bad id"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError(), "could not download owner/name from the Hub: OSError"),
        (type("ReadTimeout", (Exception,), {})(""), "ReadTimeout"),  # HTTP clients' errors are no OSErrors
    ],
)
def test_failures_of_the_hub_are_one_line(monkeypatch, error, reason):
    def snapshot_download(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(ConnectionError, match=reason) as caught:
        load("owner/name")
    assert "\n" not in str(caught.value)


def test_the_hub_is_asked_for_data_only(monkeypatch, checkpoint):
    asked = {}

    def snapshot_download(repo_id, **options):
        asked.update(options, repo_id=repo_id)
        return str(checkpoint("smolvlm_256m"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert greedy(*load("owner/name", revision="v1"), max_tokens=2) == GOLDEN["generated_ids"][:2]
    assert (asked["repo_id"], asked["revision"]) == ("owner/name", "v1")
    assert set(asked["allow_patterns"]) == {"*.safetensors", "*.json", "*.jinja", "README.md", "LICENSE*"}
