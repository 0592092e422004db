"""Bits where they matter: costs that foretell what rounding one layer does, and the choice by them."""

from math import prod

import mlx.core as mx
import pytest
from support.slow_cases import slow

from mlx_smolvlm import load
from mlx_smolvlm.convert import LayerFormat
from mlx_smolvlm.convert.calibration_data import score_samples
from mlx_smolvlm.convert.compare import CheckpointFacts, compare_models
from mlx_smolvlm.convert.probes import get_module
from mlx_smolvlm.convert.sensitivity import candidate_formats, choose_bits, measure_costs
from mlx_smolvlm.convert.synthetic_samples import built_in_samples

FACTS = CheckpointFacts("test", 0, 0)


@pytest.mark.parametrize("name", [slow("demo"), "tied"])
def test_costs_foretell_the_divergence_of_rounding_one_layer(trained, checkpoint, trained_checkpoint, name):
    folder = trained_checkpoint if name == "demo" else checkpoint("tied")
    (model, processor), (other, _) = (load(folder, dtype="float32", fuse=False) for _ in range(2))
    samples = score_samples(model, processor, built_in_samples("test", 3, 3))
    layer_format = LayerFormat(6, 32)  # fine enough for a change that the second order describes
    paths = ["language_model.layers.0.self_attn.v_proj", "language_model.layers.1.mlp.down_proj"]
    paths += ["language_model.embed_tokens", *(["language_model.lm_head"] if name == "demo" else [])]
    costs = measure_costs(model, samples, {path: [layer_format] for path in paths})
    for path in paths:
        layer = get_module(other, path)
        exact = layer.weight
        layer.weight = layer_format.dequantize(layer_format.quantize(exact), mx.float32)
        measured = compare_models(model, other, samples, FACTS, FACTS).summary()["kl_mean"]
        layer.weight = exact
        # one random vector per sample, and errors taken as independent: right within a small factor
        assert measured / 4 < costs[path][layer_format] < 4 * measured, path


def test_layers_that_matter_get_more_bits():
    formats = [LayerFormat(bits, 64) for bits in (2, 3, 4, 5, 6, 8)]
    shapes = dict.fromkeys("abc", (64, 64))
    costs = {
        name: {f: weight * 4.0**-f.bits for f in formats} for name, weight in zip("abc", (1, 16, 256), strict=True)
    }
    chosen = choose_bits(costs, shapes, 4.5)
    assert [chosen[name].bits for name in "abc"] == [2, 4, 6]  # a bit less makes the error four times as large


@pytest.mark.parametrize("target", [2.5, 3.1, 4.5, 8.5])
def test_a_target_is_met_and_used_up(target):
    formats = [LayerFormat(bits, 64) for bits in (2, 3, 4, 5, 6, 8)]
    shapes = {str(i): (64 * (1 + i % 3), 128) for i in range(40)}
    costs = {name: {f: (1 + int(name)) * 4.0**-f.bits for f in formats} for name in shapes}
    chosen = choose_bits(costs, shapes, target)
    size = sum(prod(shapes[name]) * (f.bits + 0.5) for name, f in chosen.items()) / sum(map(prod, shapes.values()))
    assert target - 0.1 < size <= target


@pytest.mark.parametrize("target", [2.4, 8.6, float("nan"), -1.0])
def test_a_target_out_of_reach_is_refused(target):
    costs = {"a": {LayerFormat(bits, 64): 1.0 for bits in (2, 8)}}
    with pytest.raises(ValueError, match=r"2.5 to 8.5 bits per weight"):
        choose_bits(costs, {"a": (64, 64)}, target)
    with pytest.raises(ValueError, match="no layer"):
        choose_bits({}, {}, target)


def test_candidates_are_the_decoders_affine_layers():
    four = LayerFormat(4, 32)
    plan = {"language_model.lm_head": four, "language_model.norm": None, "vision_model.encoder.layers.0.mlp.fc1": four}
    plan["language_model.layers.0.mlp.up_proj"] = LayerFormat(4, 32, "mxfp4")
    assert candidate_formats(plan) == {"language_model.lm_head": [LayerFormat(b, 32) for b in (2, 3, 4, 5, 6, 8)]}
    assert candidate_formats(plan, {"embeddings": four}) == {}
