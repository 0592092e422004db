"""Formats layer by layer: what options ask for, what the files say, and that every mode loads and runs."""

from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from support.editing import WEIGHTS, copied, read_config, set_field
from support.golden_cases import golden_cases, with_media
from support.slow_cases import quick_and_slow

from mlx_smolvlm import load, stream_generate
from mlx_smolvlm.convert import (
    LayerFormat,
    QuantizationOptions,
    Rounding,
    convert_checkpoint,
    open_source,
    plan_quantization,
)
from mlx_smolvlm.convert.configuration import converted_config
from mlx_smolvlm.convert.plan import RECIPES, config_entry
from mlx_smolvlm.convert.quantize import FORMATS, parse_format
from mlx_smolvlm.model.config import read_model_config

ROOT = Path(__file__).parent.parent.parent
EVERY_FORMAT = [
    LayerFormat(bits, group_size, mode)
    for mode, (all_bits, group_sizes) in FORMATS.items()
    for bits in all_bits
    for group_size in group_sizes
]
GATE, VALUE, DOWN = "mlp.gate_proj", "self_attn.v_proj", "mlp.down_proj"


def answer(folder, max_tokens=3):
    """Greedy tokens about a picture, so that every part of the model takes part."""
    case = golden_cases("smolvlm2_2b")["no_split"]
    steps = stream_generate(
        *load(folder, dtype="float32"), with_media(case["messages"]), max_tokens=max_tokens, **case["options"]
    )
    return [step.token_id for step in steps]


def layers(num_layers=24, width=64):
    """A decoder's quantizable layers, its embeddings and head, and some of the encoder and connector."""
    shapes = {"language_model.embed_tokens": (128, width), "language_model.lm_head": (128, width)}
    for layer in range(num_layers):
        shapes |= {f"language_model.layers.{layer}.{name}": (width, width) for name in (GATE, VALUE, DOWN)}
    shapes |= {f"vision_model.encoder.layers.{layer}.mlp.fc1": (width, width) for layer in range(2)}
    shapes["vision_model.embeddings.position_embedding"] = (width, width)
    shapes["connector.modality_projection.proj"] = (width, width)
    return shapes


@pytest.mark.parametrize("layer_format", quick_and_slow(EVERY_FORMAT, 5), ids=str)
def test_every_format_of_every_part_loads_and_runs(out, layer_format):
    """On the demo model, whose encoder is 128 wide and whose decoder is 192 wide."""
    parts = dict.fromkeys(("embeddings", "connector", "vision"), layer_format)
    options = QuantizationOptions(layer_format.bits, layer_format.group_size, layer_format.mode, parts=parts)
    source = ROOT / "examples" / "demo_model" / "checkpoint"
    report = convert_checkpoint(source, out, quantization=options, allow_unquantized=True)
    networks = {path.split(".")[0] for path in report.quantized}
    assert networks >= {"vision_model", "connector"} | ({"language_model"} if layer_format.group_size < 128 else set())
    assert {report.plan[path] for path in report.quantized} == {layer_format}
    picture = ROOT / "mlx_smolvlm" / "demo" / "picture.png"
    steps = list(stream_generate(*load(out), "What shape is it?", images=[picture], max_tokens=8))
    assert 1 <= len(steps) <= 8
    if layer_format.bits >= 4:  # with fewer, rounded to nearest, it may see something else
        assert "".join(step.text for step in steps) == "A circle."


def test_a_mixture_of_formats_loads_and_runs(checkpoint, out):
    options = QuantizationOptions(
        bits=3,
        group_size=32,
        parts={
            "embeddings": LayerFormat(8, 32),
            "connector": LayerFormat(4, 16, "nvfp4"),
            "vision": LayerFormat(8, 16 * 2, "mxfp8"),
        },
        skip=["*.layers.1.*.o_proj"],
    )
    report = convert_checkpoint(checkpoint("smolvlm2_2b"), out, quantization=options, allow_unquantized=True)
    parameters = dict(tree_flatten(load(out, dtype="float32", fuse=False)[0].parameters()))
    assert report.reasons["language_model.layers.1.self_attn.o_proj"] == "skipped by *.layers.1.*.o_proj"
    assert parameters["language_model.layers.1.self_attn.o_proj.weight"].dtype == mx.float32
    assert parameters["language_model.embed_tokens.weight"].shape[1] == 64 * 8 // 32
    assert parameters["language_model.layers.0.self_attn.q_proj.weight"].shape[1] == 64 * 3 // 32
    assert parameters["connector.modality_projection.proj.scales"].dtype == mx.uint8
    entry = read_config(out)["quantization"]
    assert entry == read_config(out)["quantization_config"]
    assert entry["language_model.layers.1.self_attn.o_proj"] is False
    assert entry["connector.modality_projection.proj"] == {"group_size": 16, "bits": 4, "mode": "nvfp4"}
    assert len(answer(out)) == 3


def test_defaults_quantize_the_decoder_with_embeddings_and_head_only():
    plan, reasons = plan_quantization(layers(), QuantizationOptions())
    assert {path.split(".")[0] for path, layer_format in plan.items() if layer_format} == {"language_model"}
    assert {path for path, layer_format in plan.items() if layer_format is None} == set(reasons)
    assert plan["language_model.embed_tokens"] == plan["language_model.lm_head"] == LayerFormat(4, 64)
    assert config_entry(plan) == {"group_size": 64, "bits": 4, "mode": "affine"}


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_spend_more_bits_where_it_matters(recipe):
    """Values and MLP outputs of the first and last eighth (3 of 24) and every third between; embeddings and head."""
    low, high = RECIPES[recipe]
    plan, _ = plan_quantization(layers(), QuantizationOptions(recipe=recipe))
    for name in (VALUE, DOWN):
        bits = [plan[f"language_model.layers.{layer}.{name}"].bits for layer in range(24)]
        assert [layer for layer in range(24) if bits[layer] == high] == [0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23]
        assert set(bits) == {low, high}
    assert all(plan[f"language_model.layers.{layer}.{GATE}"].bits == low for layer in range(24))
    assert plan["language_model.embed_tokens"].bits == plan["language_model.lm_head"].bits == high


def test_a_part_overrules_the_recipe():
    plan, _ = plan_quantization(layers(), QuantizationOptions(recipe="mixed_3_6", parts={"embeddings": LayerFormat(8)}))
    assert plan["language_model.lm_head"].bits == 8


def test_positions_and_widths_that_do_not_divide_stay_with_a_reason():
    shapes = layers() | {"vision_model.encoder.layers.0.mlp.fc2": (1152, 4304)}  # SigLIP SO400M's
    plan, reasons = plan_quantization(shapes, QuantizationOptions(parts={"vision": LayerFormat(8)}))
    assert plan["vision_model.encoder.layers.0.mlp.fc1"] == LayerFormat(8)
    assert "4304 is no multiple of the group size 64" in reasons["vision_model.encoder.layers.0.mlp.fc2"]
    assert "positions" in reasons["vision_model.embeddings.position_embedding"]
    entry = config_entry(plan)
    assert entry["vision_model.encoder.layers.0.mlp.fc2"] is False
    assert entry["vision_model.encoder.layers.0.mlp.fc1"] == {"group_size": 64, "bits": 8, "mode": "affine"}
    assert "connector.modality_projection.proj" not in entry  # nothing of the connector was asked for


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(ValueError, match=r"--skip 'lm_head' matches no layer; paths are such as language_model\."):
        plan_quantization(layers(), QuantizationOptions(skip=["lm_head"]))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"recipe": "mixed_1_2"}, "q-recipe is 'mixed_1_2', expected one of mixed_2_6"),
        ({"recipe": "mixed_3_6", "mode": "mxfp8", "bits": 8, "group_size": 32}, "leave q-mode mxfp8 out"),
        ({"parts": {"decoder": None}}, "no part is called 'decoder'"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        QuantizationOptions(**options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", None),
        ("6", LayerFormat(6, 32)),
        ("mxfp4", LayerFormat(4, 32, "mxfp4")),
        ("mxfp8", LayerFormat(8, 32, "mxfp8")),
        ("nvfp4", LayerFormat(4, 16, "nvfp4")),
    ],
)
def test_formats_are_named_by_bits_or_mode(text, expected):
    assert parse_format(text, group_size=32) == expected


def test_a_ready_plan_is_followed(checkpoint, out):
    path = "language_model.layers.0.self_attn.q_proj"
    report = convert_checkpoint(checkpoint("smolvlm2_2b"), out, plan={path: LayerFormat(5, 32)})
    assert report.quantized == [path]
    assert set(report.reasons) == set(open_source(checkpoint("smolvlm2_2b")).layers) - {path}
    assert len(answer(out)) == 3


@pytest.mark.parametrize(
    ("plan", "problem"),
    [
        ({"language_model.layers.9.mlp.up_proj": None}, "which is no layer of this checkpoint"),
        ({"language_model.layers.0.mlp.down_proj": LayerFormat()}, "its width 96 is no multiple"),
        ({"vision_model.embeddings.position_embedding": LayerFormat(8, 32)}, "cannot be: "),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(checkpoint, out, plan, problem):
    with pytest.raises(ValueError, match=problem):
        convert_checkpoint(checkpoint("smolvlm2_2b"), out, plan=plan)
    assert not out.exists()


def test_weights_may_be_transformed_and_rounded_otherwise(checkpoint, out, tmp_path):
    class Doubled(Rounding):
        def transform(self, name, array):
            return array * 2 if name == "language_model.norm.weight" else array

        def quantize(self, path, weight, layer_format):
            tensors = super().quantize(path, weight, layer_format)
            return tensors | {"scales": tensors["scales"] * 2, "biases": tensors["biases"] * 2}

    options = QuantizationOptions(8, 32)
    convert_checkpoint(checkpoint("smolvlm2_2b"), tmp_path / "plain", quantization=options)
    convert_checkpoint(checkpoint("smolvlm2_2b"), out, quantization=options, rounding=Doubled())
    plain, doubled = (mx.load(str(folder / WEIGHTS)) for folder in (tmp_path / "plain", out))
    for name in plain:
        is_doubled = name.endswith((".scales", ".biases")) or name == "language_model.norm.weight"
        assert mx.array_equal(doubled[name], plain[name] * (2 if is_doubled else 1)), name


def test_a_rounding_that_changes_shapes_is_refused(checkpoint, out):
    class Halved(Rounding):
        def transform(self, name, array):
            return array[: len(array) // 2]

    with pytest.raises(ValueError, match=r"in place of|announced"):
        convert_checkpoint(checkpoint("smolvlm2_2b"), out, rounding=Halved())
    assert not out.exists()


def test_a_quantized_checkpoint_is_dequantized(checkpoint, out, tmp_path):
    convert_checkpoint(checkpoint("smolvlm2_2b"), out, quantization=QuantizationOptions(8, 32))
    convert_checkpoint(out, tmp_path / "plain", dequantize=True)
    assert "quantization" not in read_config(tmp_path / "plain")
    assert answer(tmp_path / "plain", 8) == answer(out, 8)  # the same weights, multiplied otherwise
    original = dict(tree_flatten(load(checkpoint("smolvlm2_2b"), dtype="float32")[0].parameters()))
    for name, array in tree_flatten(load(tmp_path / "plain", dtype="float32")[0].parameters()):
        assert mx.abs(array - original[name]).max() <= mx.abs(original[name]).max() / 100


@pytest.mark.parametrize("first", [LayerFormat(8, 32), LayerFormat(8, 32, "mxfp8")], ids=str)
def test_a_quantized_checkpoint_is_quantized_again(checkpoint, out, tmp_path, first):
    source = checkpoint("smolvlm2_2b")
    options = QuantizationOptions(first.bits, first.group_size, first.mode)
    convert_checkpoint(source, out, quantization=options, dtype="bfloat16")
    report = convert_checkpoint(out, tmp_path / "four", quantization=QuantizationOptions(4, 32))
    assert set(report.plan.values()) == {LayerFormat(4, 32), None}
    assert read_config(tmp_path / "four")["quantization"] == {"group_size": 32, "bits": 4, "mode": "affine"}
    scales = mx.load(str(tmp_path / "four" / WEIGHTS))["language_model.lm_head.scales"]
    assert scales.dtype == mx.bfloat16
    assert len(answer(tmp_path / "four")) == 3


def test_quantized_positions_of_other_converters_load(checkpoint, tmp_path):
    """Old versions of mlx-vlm quantized all of the encoder."""
    folder = copied(checkpoint("smolvlm_256m"), tmp_path / "model")
    convert_checkpoint(folder, tmp_path / "mlx")
    weights = dict(mx.load(str(tmp_path / "mlx" / WEIGHTS)))
    name = "vision_model.embeddings.position_embedding"
    for kind, array in LayerFormat(8, 32).quantize(weights[f"{name}.weight"]).items():
        weights[f"{name}.{kind}"] = array
    mx.save_safetensors(str(tmp_path / "mlx" / WEIGHTS), weights)
    set_field(tmp_path / "mlx" / "config.json", {"group_size": 32, "bits": 8}, "quantization")
    case = golden_cases("smolvlm_256m")["no_split"]
    steps = stream_generate(
        *load(tmp_path / "mlx", dtype="float32"), with_media(case["messages"]), max_tokens=8, **case["options"]
    )
    assert [step.token_id for step in steps] == case["generated_ids"][:8]


def test_the_configuration_tells_the_type_that_was_asked_for(checkpoint):
    raw = read_config(checkpoint("smolvlm_256m"))
    raw |= {"torch_dtype": "float32", "text_config": raw["text_config"] | {"dtype": "float32"}}
    config = read_model_config(checkpoint("smolvlm_256m"))
    told = converted_config(raw, config, None, "bfloat16")
    assert (told["torch_dtype"], told["text_config"]["dtype"]) == ("bfloat16", "bfloat16")
    assert "dtype" not in told
    assert converted_config(raw, config, None)["torch_dtype"] == "float32"
