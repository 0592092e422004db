"""How far one checkpoint is from another: exact where the answer is known, and blaming the layer that is damaged."""

import mlx.core as mx
import numpy as np
import pytest
from support.editing import change_weights, copied, set_field
from support.slow_cases import slow

from mlx_smolvlm.convert import QuantizationOptions, convert_checkpoint
from mlx_smolvlm.convert.calibration_data import ScoredSample
from mlx_smolvlm.convert.compare import CheckpointFacts, Comparison, compare_checkpoints
from mlx_smolvlm.convert.synthetic_samples import built_in_samples

FACTS = CheckpointFacts("test", 0, 0)


@pytest.fixture(scope="module")
def samples():
    return built_in_samples("test", 1, 1)


@pytest.mark.parametrize("name", ["trained", "tied", "smolvlm_256m"])
def test_a_checkpoint_equals_itself(checkpoint, trained_checkpoint, samples, name):
    folder = trained_checkpoint if name == "trained" else checkpoint(name)
    comparison = compare_checkpoints(folder, folder, samples)
    summary = comparison.summary()
    assert (summary["kl_mean"], summary["kl_p99"]) == (0, 0)
    assert (summary["top_1_agreement"], summary["greedy_agreement"]) == (1, 1)
    assert summary["perplexity"] == summary["reference_perplexity"]
    assert set(comparison.layer_errors.values()) == {0}


def test_a_quantized_checkpoint_is_near_and_smaller(trained_checkpoint, samples, tmp_path):
    kl = {}
    for bits in (8, 3):
        out = tmp_path / str(bits)
        report = convert_checkpoint(trained_checkpoint, out, quantization=QuantizationOptions(bits=bits))
        summary = compare_checkpoints(trained_checkpoint, out, samples).summary()
        kl[bits] = summary["kl_mean"]
        assert summary["size_bytes"] == report.size_bytes
        assert summary["bits_per_weight"] == pytest.approx(report.bits_per_weight)
        assert summary["reference_bits_per_weight"] == 16
    assert 0 < kl[8] < kl[3]


@pytest.mark.parametrize(
    "path",
    [
        "model.text_model.layers.2.mlp.down_proj",
        slow("model.text_model.layers.0.input_layernorm"),
        "model.vision_model.encoder.layers.1.self_attn.v_proj",
        slow("model.vision_model.embeddings.position_embedding"),
        slow("model.connector.modality_projection.proj"),
        "lm_head",
    ],
)
def test_a_damaged_layer_is_named(checkpoint, samples, tmp_path, path):
    folder = copied(checkpoint("smolvlm_256m"), tmp_path / "damaged")

    def zero(weights):
        for name in (f"{path}.weight", f"{path}.bias"):
            if name in weights:
                weights[name] = np.zeros_like(weights[name])

    change_weights(folder, zero)
    comparison = compare_checkpoints(checkpoint("smolvlm_256m"), folder, samples)
    worst, error = comparison.worst_layers[0]
    expected = path.replace("model.text_model", "language_model").replace("model.vision", "vision")
    expected = expected.replace("model.connector", "connector").replace("lm_head", "language_model.lm_head")
    assert worst == expected.removesuffix(".position_embedding")  # positions and patches are one layer
    assert error > 0.1
    assert comparison.worst_layers[1][1] == 0  # the others get what they get in the reference
    assert comparison.summary()["kl_mean"] > 0


def test_measures_are_those_of_their_definitions():
    """Two tokens of a vocabulary of two; the second is chosen differently."""
    sample = ScoredSample("x", [0, 1, 0], None, 1)
    comparison = Comparison(FACTS, FACTS, layer_errors={"layer": 0.5})
    a, b = np.log([[0.25, 0.75], [0.6, 0.4]]), np.log([[0.5, 0.5001], [0.2, 0.8]])
    comparison.add(mx.array(a, mx.float32), mx.array(b, mx.float32), sample)
    summary = comparison.summary()
    kl = [0.25 * np.log(0.25 / 0.5) + 0.75 * np.log(0.75 / 0.5), 0.6 * np.log(0.6 / 0.2) + 0.4 * np.log(0.4 / 0.8)]
    assert comparison.kl[0] == pytest.approx(kl, abs=1e-4)
    assert summary["kl_mean"] == pytest.approx(np.mean(kl), abs=1e-4)
    assert comparison.kl_by_position == pytest.approx(kl, abs=1e-4)
    assert summary["top_1_agreement"] == summary["greedy_agreement"] == 0.5
    assert summary["reference_perplexity"] == pytest.approx((0.75 * 0.6) ** -0.5, rel=1e-4)
    assert summary["perplexity"] == pytest.approx((0.5 * 0.2) ** -0.5, rel=1e-3)


def test_agreement_after_a_difference_counts_for_top_1_alone():
    comparison = Comparison(FACTS, FACTS, kl=[[0.0] * 4], agrees=[[True, False, True, True]])
    assert comparison.greedy_agreement == 0.25


def test_damaged_numbers_are_refused(checkpoint, samples, tmp_path):
    folder = copied(checkpoint("smolvlm_256m"), tmp_path / "damaged")
    change_weights(folder, lambda weights: weights["lm_head.weight"].fill(np.nan))
    with pytest.raises(ValueError, match="not finite"):
        compare_checkpoints(checkpoint("smolvlm_256m"), folder, samples)


def test_other_geometries_are_refused(checkpoint, samples):
    with pytest.raises(ValueError, match="only checkpoints of one geometry can be compared"):
        compare_checkpoints(checkpoint("smolvlm_256m"), checkpoint("idefics3"), samples)


def test_other_vocabularies_are_refused(checkpoint, samples, tmp_path):
    folder = copied(checkpoint("smolvlm_256m"), tmp_path / "other")
    tokens = [token["content"] for token in _added_tokens(folder)]
    last = next(i for i, token in enumerate(tokens) if "row_1_col_1" in token)
    set_field(folder / "tokenizer.json", "<renamed>", "added_tokens", last, "content")
    with pytest.raises(ValueError, match="tokens differently, such as '<re"):
        compare_checkpoints(checkpoint("smolvlm_256m"), folder, samples)


def _added_tokens(folder):
    import json

    return json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
