"""Conversion: names, types and settings of the new folder, and nothing at all when it fails."""

import json
import os
import re

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from safetensors import safe_open
from safetensors.numpy import load_file
from support.editing import WEIGHTS, change_weights, copied, read_config, set_field
from support.golden_cases import CHECKPOINT_NAMES, golden_cases, with_media

from mlx_smolvlm import load, stream_generate
from mlx_smolvlm.convert import QuantizationOptions, convert_checkpoint, shards
from mlx_smolvlm.convert import checkpoint as conversion
from mlx_smolvlm.model.weights import INDEX, PATCH_EMBEDDING_WEIGHT

FOUR_BITS = QuantizationOptions(bits=4, group_size=32)


def tensors(folder):
    return dict(mx.load(str(folder / WEIGHTS)))


def assert_same_tensors(one, other):
    a, b = tensors(one), tensors(other)
    assert a.keys() == b.keys()
    assert all(a[name].dtype == b[name].dtype and mx.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", CHECKPOINT_NAMES)
@pytest.mark.parametrize("case_name", ["text", "no_split"])
def test_a_plain_conversion_answers_as_the_original(checkpoint, out, name, case_name):
    convert_checkpoint(checkpoint(name), out)
    case = golden_cases(name)[case_name]
    steps = stream_generate(*load(out, dtype="float32"), with_media(case["messages"]), max_tokens=32, **case["options"])
    assert [step.token_id for step in steps] == case["generated_ids"]


def test_converting_a_conversion_changes_nothing(checkpoint, out, tmp_path):
    convert_checkpoint(checkpoint("smolvlm_256m"), out)
    convert_checkpoint(out, tmp_path / "again")
    assert_same_tensors(tmp_path / "again", out)
    assert read_config(tmp_path / "again") == read_config(out)


def test_names_are_those_of_the_mlx_community(checkpoint, out):
    convert_checkpoint(checkpoint("smolvlm_256m"), out)
    original = load_file(checkpoint("smolvlm_256m") / WEIGHTS)
    renamed = {re.sub(r"^lm_head\.", "text_model.lm_head.", name.removeprefix("model.")) for name in original}
    assert set(tensors(out)) == {re.sub(r"^text_model\.", "language_model.", name) for name in renamed}
    assert "language_model.lm_head.weight" in tensors(out)
    with safe_open(out / WEIGHTS, "numpy") as file:
        assert file.metadata() == {"format": "mlx"}  # by which the ecosystem knows the layout


def test_the_patch_embedding_is_stored_in_the_axis_order_of_mlx(checkpoint, out):
    convert_checkpoint(checkpoint("smolvlm_256m"), out)
    original = load_file(checkpoint("smolvlm_256m") / WEIGHTS)[f"model.{PATCH_EMBEDDING_WEIGHT}"]
    converted = np.array(tensors(out)[PATCH_EMBEDDING_WEIGHT])
    assert converted.shape == (32, 16, 16, 3)
    assert converted[5, 7, 11, 2] == original[5, 2, 7, 11]


def test_what_the_source_left_to_defaults_is_written_out(checkpoint, out):
    """mlx-vlm assumes other values, rope_theta 1e6 among them, and does not read `rope_parameters`."""
    convert_checkpoint(checkpoint("smolvlm2_2b"), out)
    config = read_config(out)
    assert config["text_config"]["rope_theta"] == 130000.0
    assert config["text_config"]["num_key_value_heads"] == 8
    assert config["vision_config"]["layer_norm_eps"] == 1e-6
    assert "quantization" not in config


@pytest.mark.parametrize("bits", [4, 8])
def test_quantization_covers_the_decoder_and_spares_encoder_and_connector(checkpoint, out, bits):
    report = convert_checkpoint(checkpoint("smolvlm2_2b"), out, quantization=QuantizationOptions(bits, 32))
    codes = {name.removesuffix(".weight") for name, array in tensors(out).items() if array.dtype == mx.uint32}
    assert codes == set(report.quantized)
    assert len(codes) == 2 * 7 + 2  # every matrix of the layers, the embeddings and the head
    original = dict(tree_flatten(load(checkpoint("smolvlm2_2b"), dtype="float32")[0].parameters()))
    for name, array in tensors(out).items():
        if name.startswith(("vision_model.", "connector.")):
            assert mx.array_equal(array, original[name])
    entry = {"group_size": 32, "bits": bits, "mode": "affine"}
    assert read_config(out)["quantization"] == read_config(out)["quantization_config"] == entry
    assert report.bits_per_weight < 32
    assert report.size_bytes == sum(array.nbytes for array in tensors(out).values())


def test_eight_bits_come_close_to_the_original(checkpoint, out, loaded):
    convert_checkpoint(checkpoint("smolvlm_256m"), out, quantization=QuantizationOptions(8, 32))
    ids = golden_cases("smolvlm_256m")["text"]["input_ids"]
    expected, found = (model(ids)[0, -1] for model in (loaded("smolvlm_256m")[0], load(out, dtype="float32")[0]))
    assert mx.abs(expected - found).max().item() < 0.05 * mx.abs(expected).max().item()  # 1/255 per weight, 3 layers


def decoder_layers_kept(report):
    """Layers of the part that was asked for that keep full precision; each has a reason."""
    return [path for path in report.reasons if path.startswith("language_model.")]


def test_layers_whose_width_does_not_divide_are_named_and_kept(checkpoint, out):
    report = convert_checkpoint(checkpoint("smolvlm2_2b"), out, quantization=QuantizationOptions(4, 64))
    kept = [f"language_model.layers.{layer}.mlp.down_proj" for layer in range(2)]  # 96 is no multiple of 64
    assert decoder_layers_kept(report) == kept
    assert "its width 96 is no multiple of the group size 64" in report.reasons[kept[0]]
    assert {name: read_config(out)["quantization"][name] for name in kept} == dict.fromkeys(kept, False)
    weights = dict(tree_flatten(load(out, dtype="float32", fuse=False)[0].parameters()))
    assert weights[f"{kept[0]}.weight"].dtype == mx.float32


def test_matrices_that_mlx_vlm_would_not_read_as_quantized_are_kept(checkpoint, out):
    """It tests whether 64 divides the number of weights, here 443 x 96."""
    report = convert_checkpoint(checkpoint("smolvlm_256m"), out, quantization=FOUR_BITS)
    assert sorted(decoder_layers_kept(report)) == ["language_model.embed_tokens", "language_model.lm_head"]
    assert len(report.quantized) == 3 * 7
    assert tensors(out)["language_model.lm_head.weight"].dtype == mx.float32


@pytest.mark.parametrize(("mode", "bits", "group_size"), [("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)])
def test_the_microscaling_modes_load_and_run(checkpoint, out, mode, bits, group_size):
    convert_checkpoint(checkpoint("smolvlm2_2b"), out, quantization=QuantizationOptions(bits, group_size, mode))
    case = golden_cases("smolvlm2_2b")["no_split"]
    steps = list(stream_generate(*load(out), with_media(case["messages"]), max_tokens=4, **case["options"]))
    assert len(steps) == 4
    assert read_config(out)["quantization"] == {"group_size": group_size, "bits": bits, "mode": mode}


@pytest.mark.parametrize(
    "options",
    [
        {"bits": 7},
        {"bits": 0},
        {"bits": -4},
        {"group_size": 0},
        {"group_size": 48},
        {"mode": "q4_0"},
        {"mode": "mxfp4"},
    ],
)
def test_formats_without_kernels_are_refused(options):
    with pytest.raises(ValueError, match=r"q-(bits|group-size|mode) is"):
        QuantizationOptions(**options)


def test_a_tied_checkpoint_stays_tied_when_quantized(checkpoint, out, tmp_path):
    source = copied(checkpoint("smolvlm_2b_v1"), tmp_path / "source")
    set_field(source / "config.json", True, "tie_word_embeddings")
    change_weights(source, lambda weights: weights.pop("lm_head.weight"))
    report = convert_checkpoint(source, out, quantization=FOUR_BITS)
    assert "language_model.embed_tokens" in report.quantized
    assert read_config(out)["text_config"]["tie_word_embeddings"] is True  # the only place where mlx-vlm looks
    assert not any("lm_head" in name for name in tensors(out))
    assert len(list(stream_generate(*load(out), "hi", max_tokens=3))) == 3


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtype_casts_what_is_not_quantized(checkpoint, out, dtype):
    convert_checkpoint(checkpoint("smolvlm_256m"), out, dtype=dtype, quantization=FOUR_BITS)
    assert {array.dtype for array in tensors(out).values()} == {mx.uint32, getattr(mx, dtype)}


def test_large_checkpoints_are_sharded_with_an_index(checkpoint, out, monkeypatch):
    monkeypatch.setattr(shards, "MAX_SHARD_BYTES", 500_000)
    report = convert_checkpoint(checkpoint("smolvlm_256m"), out)
    index = json.loads((out / INDEX).read_text(encoding="utf-8"))
    files = sorted(out.glob("*.safetensors"))
    assert len(files) > 1
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    assert {file.name for file in files} == set(index["weight_map"].values())
    assert index["metadata"]["total_size"] == report.size_bytes
    for file in files:
        held = mx.load(str(file))
        assert sum(array.nbytes for array in held.values()) <= 500_000 or len(held) == 1
        assert all(index["weight_map"][name] == file.name for name in held)
    assert load(out)[0].config == load(checkpoint("smolvlm_256m"))[0].config


def test_a_sharded_source_leaves_no_index_behind(checkpoint, out):
    assert (checkpoint("smolvlm2_2b") / INDEX).exists()
    convert_checkpoint(checkpoint("smolvlm2_2b"), out)
    assert [file.name for file in out.glob("*.safetensors*")] == [WEIGHTS]


def test_all_that_a_user_needs_is_copied_and_no_code(checkpoint, out, tmp_path):
    source = copied(checkpoint("smolvlm_256m"), tmp_path / "source")
    for name in ("LICENSE", "modeling_evil.py", "pytorch_model.bin"):
        (source / name).write_text("x", encoding="utf-8")
    (source / "dangling.json").symlink_to("nowhere")
    convert_checkpoint(source, out)
    copied_files = {file.name for file in checkpoint("smolvlm_256m").iterdir()} | {"LICENSE"}
    assert {file.name for file in out.iterdir()} == copied_files | {"README.md", "quantization_report.json"}
    for name in copied_files - {"config.json", WEIGHTS}:
        assert (out / name).read_bytes() == (source / name).read_bytes()


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link", "link to a folder"])
def test_a_target_that_exists_is_left_untouched(checkpoint, out, tmp_path, kind):
    if kind == "folder":
        out.mkdir()
        (out / "keep.txt").write_text("mine", encoding="utf-8")
    elif kind == "file":
        out.write_text("mine", encoding="utf-8")
    else:
        (tmp_path / "empty").mkdir()
        out.symlink_to("nowhere" if kind == "dangling link" else "empty")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(FileExistsError, match="exists already"):
        convert_checkpoint(checkpoint("smolvlm_256m"), out)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_an_empty_target_is_taken(checkpoint, out):
    out.mkdir()
    convert_checkpoint(checkpoint("smolvlm_256m"), out)
    assert (out / WEIGHTS).exists()


@pytest.mark.parametrize("function", ["write_weights", "copy_companions", "write_json"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_midway_leaves_nothing(checkpoint, out, tmp_path, monkeypatch, function, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(conversion, function, fail)
    with pytest.raises(type(error)):
        convert_checkpoint(checkpoint("smolvlm_256m"), out / "within" / "new folders")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda source: (source / WEIGHTS).write_bytes(b"x"), "truncated or not a safetensors file"),
        (lambda source: (source / "tokenizer.json").write_text("{}"), "is not a tokenizer"),
        (lambda source: set_field(source / "config.json", 7, "scale_factor"), "cannot be folded"),
    ],
)
def test_a_source_that_could_not_be_used_is_refused_before_anything_is_written(
    checkpoint, out, tmp_path, change, problem
):
    source = copied(checkpoint("smolvlm_256m"), tmp_path / "source")
    change(source)
    with pytest.raises(ValueError, match=problem):
        convert_checkpoint(source, out)
    assert os.listdir(tmp_path) == ["source"]


def test_a_quantized_source_is_copied_as_it_is(checkpoint, out, tmp_path):
    first = convert_checkpoint(checkpoint("smolvlm_256m"), out, quantization=FOUR_BITS)
    assert convert_checkpoint(out, tmp_path / "copy").bits_per_weight == first.bits_per_weight
    assert_same_tensors(tmp_path / "copy", out)
    assert read_config(tmp_path / "copy")["quantization"] == read_config(out)["quantization"]


def test_an_unknown_dtype_is_refused(checkpoint, out):
    with pytest.raises(ValueError, match="dtype is 'int4'"):
        convert_checkpoint(checkpoint("smolvlm_256m"), out, dtype="int4")
