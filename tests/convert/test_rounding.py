"""Rounding with compensation: the same files, closer outputs."""

import mlx.core as mx
import numpy as np
import pytest
from support.checkpoint_configs import CHECKPOINTS

from mlx_smolvlm.convert import LayerFormat
from mlx_smolvlm.convert.calibration_data import answer_logits, score_samples
from mlx_smolvlm.convert.rounding import (
    CalibratedRounding,
    compensate,
    compensation_gains,
    factorize,
    pack,
    round_decoder,
)
from mlx_smolvlm.convert.synthetic_samples import built_in_samples

BITS = (2, 3, 4, 5, 6, 8)


def correlated_inputs(tokens: int, width: int) -> mx.array:
    """Inputs that share a few directions, as those of real layers do."""
    random = np.random.RandomState(0)
    shared = random.standard_normal((tokens, 8)) @ random.standard_normal((8, width))
    return mx.array((shared + 0.3 * random.standard_normal((tokens, width))).astype(np.float32))


@pytest.mark.parametrize("bits", BITS)
def test_codes_are_packed_as_mlx_packs_them(bits):
    weight = mx.random.normal((3, 128), key=mx.random.key(bits))
    tensors = LayerFormat(bits, 64).quantize(weight)
    ones = mx.ones_like(tensors["scales"])
    codes = mx.dequantize(tensors["weight"], ones, 0 * ones, 64, bits)
    assert mx.array_equal(pack(np.array(codes).astype(np.uint8), bits), tensors["weight"])


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_inputs_that_say_nothing_leave_plain_rounding(bits, dtype):
    weight = mx.random.normal((5, 192), key=mx.random.key(bits)).astype(dtype)
    plain, layer_format = LayerFormat(bits, 64).quantize(weight), LayerFormat(bits, 64)
    for hessian in (mx.eye(192), mx.zeros((192, 192))):
        tensors = compensate(weight, factorize(hessian), layer_format)
        assert {name: (a.shape, a.dtype) for name, a in tensors.items()} == {
            name: (a.shape, a.dtype) for name, a in plain.items()
        }
        if dtype == mx.float32:
            assert all(mx.array_equal(tensors[name], plain[name]) for name in plain)
        else:  # MLX takes codes by scales that it then rounds to bfloat16; here they fit the scales of the file
            error, plain_error = (
                mx.square(layer_format.dequantize(t, mx.float32) - weight.astype(mx.float32)).sum().item()
                for t in (tensors, plain)
            )
            assert error <= plain_error


@pytest.mark.parametrize("bits", BITS)
def test_outputs_come_closer_than_by_plain_rounding(bits):
    x, weight = correlated_inputs(512, 320), mx.random.normal((64, 320), key=mx.random.key(bits))
    layer_format = LayerFormat(bits, 32)

    def error(tensors):
        return mx.square(x @ (layer_format.dequantize(tensors, mx.float32) - weight).T).sum().item()

    plain, compensated = (
        error(layer_format.quantize(weight)),
        error(compensate(weight, factorize(x.T @ x), layer_format)),
    )
    assert compensated < 0.5 * plain


def test_groups_of_equal_weights_are_kept():
    weight = mx.zeros((4, 128))
    weight[:, 64:] = 0.5
    layer_format = LayerFormat(4, 64)
    tensors = compensate(weight, factorize(mx.eye(128)), layer_format)
    assert mx.array_equal(layer_format.dequantize(tensors, mx.float32), weight)


@pytest.mark.parametrize("name", [name for name in CHECKPOINTS if name in ("smolvlm_256m", "tied")])
def test_every_layer_of_the_decoder_and_the_head_is_rounded(checkpoint, name):
    from mlx_smolvlm import load

    model, processor = load(checkpoint(name), dtype="float32", fuse=False)
    samples = score_samples(model, processor, built_in_samples("test", 1, 2))
    plan = {path: LayerFormat(3, 32) for path, layer in model.named_modules() if hasattr(layer, "to_quantized")}
    plan |= dict.fromkeys([path for path in plan if not path.startswith("language_model")])
    before = answer_logits(model, samples[0])
    mx.eval(before)
    rounding = round_decoder(model, samples, plan, lambda path: mx.float32)
    rounded = {path for path, layer_format in plan.items() if layer_format}
    if name != "tied":
        rounded.discard("language_model.embed_tokens")  # looked up, not multiplied: rounded to nearest
    assert set(rounding._layers) == rounded
    assert not mx.allclose(answer_logits(model, samples[0]), before)  # the model holds the rounded weights


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        factorize(mx.array([[1.0, float("nan")], [0.0, 1.0]]))


def test_layers_that_were_not_rounded_are_rounded_to_nearest():
    weight, layer_format = mx.random.normal((4, 64), key=mx.random.key(0)), LayerFormat(4, 64)
    mine = {"weight": mx.array([1])}
    rounding = CalibratedRounding({"a": mine})
    assert rounding.quantize("a", weight, layer_format) is mine
    for name, array in layer_format.quantize(weight).items():
        assert mx.array_equal(rounding.quantize("b", weight, layer_format)[name], array)


def test_gains_are_shares(trained):
    samples = score_samples(*trained, built_in_samples("test", 2, 2))
    gains = compensation_gains(trained[0], samples, ["language_model.layers.1.mlp.down_proj", "language_model.lm_head"])
    assert len(gains) == 2
    assert all(0 < gain < 0.6 for gain in gains.values())  # inputs of trained layers go together
