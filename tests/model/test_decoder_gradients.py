"""Gradients through a fused decoder are those of a plain one, and none is silently zero."""

import shutil

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten, tree_map
from support.small_decoder import IDS, MATRICES, assert_alike, at, blocks, built, layer_at, logits

import mlx_smolvlm
from mlx_smolvlm.model.language import LanguageModel


class Adapted(nn.Module):
    """A linear layer with a low-rank term, as LoRA has it."""

    def __init__(self, linear: nn.Module, rank: int = 2):
        super().__init__()
        rows, columns = linear.weight.shape
        if isinstance(linear, nn.QuantizedLinear):
            columns = columns * 32 // linear.bits
        self.linear = linear
        self.lora_a = mx.random.normal((columns, rank), key=mx.random.key(1)) / 8
        self.lora_b = mx.random.normal((rank, rows), key=mx.random.key(2)) / 8

    def __call__(self, x: mx.array) -> mx.array:
        return self.linear(x) + (x @ self.lora_a) @ self.lora_b


def gradients_of(model: LanguageModel) -> dict[str, mx.array]:
    """Of a loss of the logits by all trainable parameters, by name."""
    return dict(tree_flatten(nn.value_and_grad(model, lambda: mx.square(logits(model)).mean())()[1]))


def assert_same_gradients(found: dict[str, mx.array], expected: dict[str, mx.array]) -> None:
    """All of them, none of which is zero."""
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        size = mx.abs(gradient).max().item()
        assert size > 0, name
        assert mx.abs(found[name] - gradient).max().item() < 1e-4 * size + 1e-7, name  # float32, sums in another order


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("bits", [0, 4])
@pytest.mark.parametrize("path", [*MATRICES, "lm_head"])
def test_an_adapter_takes_effect_and_learns(fused, bits, path):
    model, other = built(fused, bits), built(fused=False, bits=bits)
    before = logits(model)
    gradients = []
    for changed in (model, other):
        changed.freeze()
        holder, name = at(changed, path)
        setattr(holder, name, Adapted(getattr(holder, name)))
        gradients.append(gradients_of(changed))
    assert sum(block.is_fused for block in blocks(model)) == (4 - (path != "lm_head") if fused else 0)
    assert_alike(model, other)
    assert mx.abs(logits(model) - before).max().item() > 1e-2
    assert sorted(gradients[0]) == [f"{path}.lora_a", f"{path}.lora_b"]
    assert_same_gradients(*gradients)
    model.fuse()
    assert_alike(model, other)
    assert all(block.is_fused for block in blocks(model))


def test_gradients_of_a_fused_decoder_are_those_of_a_plain_one():
    assert_same_gradients(gradients_of(built()), gradients_of(built(fused=False)))


@pytest.mark.parametrize("name", ["smolvlm_256m", "tied"])
def test_gradients_of_a_loaded_model_are_those_of_a_plain_one(checkpoint, name):
    def gradients(fuse: bool) -> dict[str, mx.array]:
        model = mlx_smolvlm.load(checkpoint(name), dtype="float32", fuse=fuse)[0]
        decoder = model.language_model
        found = nn.value_and_grad(decoder, lambda _: mx.logsumexp(model(IDS), axis=-1).mean())(decoder)[1]
        return dict(tree_flatten(found))

    assert_same_gradients(gradients(True), gradients(False))


def test_gradients_by_arrays_that_were_put_in_by_hand_are_right():
    model, path = built(), "layers.0.mlp.gate_proj"

    def loss(weight: mx.array) -> mx.array:
        layer_at(model, path).weight = weight
        return mx.square(logits(model)).mean()

    found = mx.grad(loss)(layer_at(model, path).weight)
    expected = gradients_of(built(fused=False))[f"{path}.weight"]
    assert_same_gradients({path: found}, {path: expected})


def test_steps_of_training_move_a_fused_decoder_as_a_plain_one():
    models = [built(), built(fused=False)]
    for model in models:
        for _ in range(3):
            # the model as an argument, as training loops pass it
            gradients = nn.value_and_grad(model, lambda module: mx.square(logits(module)).mean())(model)[1]
            model.update(tree_map(lambda array, gradient: array - 0.1 * gradient, model.parameters(), gradients))
            mx.eval(model.parameters())
    assert_alike(*models, tolerance=1e-3)
    assert mx.abs(logits(models[0]) - logits(built())).max().item() > 1e-2


@pytest.mark.skipif(shutil.which("g++") is None, reason="MLX compiles for a CPU with g++")
def test_a_compiled_function_sees_new_weights_where_it_captures_the_model():
    model, expected = built(), built(fused=False)
    compiled = mx.compile(lambda: logits(model), inputs=model)
    assert mx.abs(compiled() - logits(expected)).max().item() < 1e-4
    for changed in (model, expected):
        layer = layer_at(changed, MATRICES[0])
        layer.weight = 2 * layer.weight
    assert mx.abs(compiled() - logits(expected)).max().item() < 1e-4


def test_a_checkpointed_block_has_the_same_gradients():
    model = built()
    mlp, x = model.layers[0].mlp, mx.random.normal((1, 3, 64), key=mx.random.key(5))
    step = model.step(x, model.make_cache())
    functions = [lambda x: mlp(x, x, step), nn.utils.checkpoint(mlp, lambda x: mlp(x, x, step))]
    found = [nn.value_and_grad(mlp, lambda f=function: mx.square(f(x)).mean())()[1] for function in functions]
    assert_same_gradients(*(dict(tree_flatten(gradients)) for gradients in found))
