"""What is done to a decoder's layers after loading takes effect, fused or not."""

import copy
import threading

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten, tree_unflatten
from support.small_decoder import IDS, MATRICES, NORMS, PATHS, assert_alike, at, blocks, built, layer_at, logits

import mlx_smolvlm
from mlx_smolvlm.model.layers import fusing

BOTH = pytest.mark.parametrize("fused", [False, True])


class Doubled(nn.Module):
    """A layer whose result is doubled; it has no array of its own."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def __call__(self, x: mx.array) -> mx.array:
        return 2 * self.inner(x)

    def as_linear(self, x: mx.array) -> mx.array:
        return 2 * self.inner.as_linear(x)


def test_fused_layers_stay_where_they_are_and_share_the_joined_memory():
    plain = built(fused=False)
    before = mx.get_active_memory()
    plain.fuse()
    assert mx.get_active_memory() <= before + 1024
    names = [name for name, _ in tree_flatten(plain.parameters())]
    assert names == [name for name, _ in tree_flatten(built(fused=False).parameters())]
    assert all(block.is_fused for block in blocks(plain))
    assert_alike(plain, built(fused=False))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("fused", "assign"), [(True, "attribute"), (True, "item"), (True, "update_modules"), (False, "attribute")]
)
def test_a_replaced_layer_takes_effect(fused, path, assign):
    model = built(fused)
    before = logits(model)
    holder, name = at(model, path)
    replacement = Doubled(getattr(holder, name))
    if assign == "attribute":
        setattr(holder, name, replacement)
    elif assign == "item":
        holder[name] = replacement
    else:
        model.update_modules(tree_unflatten([(path, replacement)]))
    expected = built(fused=False)
    layer = layer_at(expected, path)
    layer.weight = 2 * layer.weight
    assert_alike(model, expected)
    assert mx.abs(logits(model) - before).max().item() > 1e-2


@pytest.mark.parametrize("path", [*MATRICES, *NORMS, "lm_head"])
def test_a_layer_may_be_replaced_by_a_mere_function(path):
    model, expected = built(), built(fused=False)
    holder, name = at(model, path)
    layer = getattr(holder, name)
    setattr(holder, name, lambda x: 2 * layer(x))
    layer_at(expected, path).weight *= 2
    assert_alike(model, expected)
    model.fuse()  # leaves such a block as it is
    assert_alike(model, expected)


@pytest.mark.parametrize("path", MATRICES)
def test_a_layer_of_another_class_with_the_same_arrays_takes_effect(path):
    class DoubledLinear(nn.Linear):
        def __call__(self, x):
            return 2 * super().__call__(x)

    model, expected = built(), built(fused=False)
    holder, name = at(model, path)
    other = DoubledLinear(64, 64, bias=False)
    other.weight = getattr(holder, name).weight
    setattr(holder, name, other)
    layer_at(expected, path).weight *= 2
    assert_alike(model, expected)


@pytest.mark.parametrize("path", NORMS)
def test_a_norm_with_another_epsilon_takes_effect(path):
    model, expected = built(), built(fused=False)
    holder, name = at(model, path)
    norm = nn.RMSNorm(64, eps=0.5)
    norm.weight = getattr(holder, name).weight
    setattr(holder, name, norm)
    holder, name = at(expected, path)
    layer = getattr(holder, name)
    setattr(holder, name, lambda x: mx.fast.rms_norm(x, layer.weight, 0.5))
    assert_alike(model, expected)


def test_whole_blocks_can_be_replaced():
    model, other = built(), built(fused=False)
    for changed in (model, other):
        changed.layers[0].mlp = copy.deepcopy(changed.layers[1].mlp)
        changed.layers[1] = changed.layers[0]
    assert_alike(model, other)


@BOTH
@pytest.mark.parametrize("path", PATHS)
def test_new_weights_take_effect(fused, path):
    weight = mx.random.normal(layer_at(built(), path).weight.shape, key=mx.random.key(9)) / 8
    expected = built(fused=False)
    layer_at(expected, path).weight = weight
    assert mx.abs(logits(expected) - logits(built())).max().item() > 1e-2

    assigned, updated, loaded = built(fused), built(fused), built(fused)
    layer_at(assigned, path).weight = weight
    updated.update(tree_unflatten([(f"{path}.weight", weight)]))
    loaded.load_weights([(f"{path}.weight", weight)], strict=False)
    for model in (assigned, updated, loaded):
        assert_alike(model, expected)


@pytest.mark.parametrize("bits", [0, 4])
@pytest.mark.parametrize("path", MATRICES)
def test_weights_changed_in_place_take_effect(path, bits):
    """MLX's arrays stay the same objects then."""
    model, expected = built(bits=bits), built(fused=False, bits=bits)
    key = "scales" if bits else "weight"
    changed, plain = layer_at(model, path)[key], layer_at(expected, path)[key]
    changed += 0.25
    changed[3] = 0.5
    layer_at(expected, path)[key] = mx.where((mx.arange(plain.shape[0]) == 3)[:, None], 0.5, plain + 0.25)
    assert layer_at(model, path)[key] is changed
    assert_alike(model, expected, 1e-3)  # the larger weights make logits of about 10
    assert mx.abs(logits(model) - logits(built(bits=bits))).max().item() > 1e-2


def test_all_of_mlx_s_operations_in_place_are_watched():
    no_operations = {"__init__", "__init_subclass__", "__index__", "__int__", "__invert__", "__iter__"}
    assert {name for name in dir(mx.array) if name.startswith("__i")} - no_operations == set(fusing.IN_PLACE[1:])


@pytest.mark.parametrize("path", MATRICES)
def test_an_added_bias_takes_effect(path):
    model, expected = built(), built(fused=False)
    for changed in (model, expected):
        layer = layer_at(changed, path)
        layer.bias = mx.arange(layer.weight.shape[0]) / 32
    assert_alike(model, expected)
    assert mx.abs(logits(model) - logits(built())).max().item() > 1e-2


def test_a_cast_takes_effect():
    model, expected = built(), built(fused=False)
    for changed in (model, expected):
        changed.set_dtype(mx.float16)
    assert logits(model).dtype == mx.float16
    assert_alike(model, expected, 0.05)  # float16 has 11 bits
    assert layer_at(model, MATRICES[0]).weight.dtype == mx.float16


@pytest.mark.parametrize("name", ["smolvlm_256m", "tied"])
def test_quantizing_a_loaded_model_equals_quantizing_a_plain_one(checkpoint, name):
    def choice(path, module):
        return "language_model" in path and hasattr(module, "to_quantized")

    fused, plain, again = (mlx_smolvlm.load(checkpoint(name), dtype="float32", fuse=fuse)[0] for fuse in (1, 0, 0))
    before = fused(IDS)
    for model in (fused, plain, again):
        nn.quantize(model, 32, 4, class_predicate=choice)
    assert mx.array_equal(fused(IDS), plain(IDS))
    assert mx.abs(fused(IDS) - before).max().item() > 0.05
    for model in (fused, again):
        model.language_model.fuse()
        assert all(block.is_fused for block in blocks(model.language_model))
    assert mx.array_equal(fused(IDS), again(IDS))
    assert mx.abs(fused(IDS) - plain(IDS)).max().item() < 2e-3


def test_quantizing_a_loaded_model_frees_its_weights():
    mx.clear_cache()
    base = mx.get_active_memory()
    model = built()
    held = mx.get_active_memory() - base
    nn.quantize(model, 32, 4)
    mx.eval(logits(model), model.parameters())
    assert mx.get_active_memory() - base < 0.3 * held  # 4 bits, and scales and biases, of 32


def test_a_copy_is_a_model_of_its_own():
    model = built()
    other = copy.deepcopy(model)
    layer_at(other, MATRICES[0]).weight *= 2
    assert_alike(model, built(fused=False))
    assert mx.abs(logits(model) - logits(other)).max().item() > 1e-2
    other.fuse()
    layer_at(model, MATRICES[0]).weight *= 2
    assert_alike(model, other)


def test_fused_again_after_changes_a_decoder_is_joined_again_and_other_threads_can_use_it():
    model = built()
    for path in MATRICES:
        layer_at(model, path).weight += 0.01
    assert [block.is_fused for block in blocks(model)] == [True, False, False, True]  # those of layers 1, 1, 0, 0
    expected = logits(model)
    model.fuse()
    assert all(block.is_fused for block in blocks(model))
    found = []
    thread = threading.Thread(target=lambda: found.append(logits(model, True).tolist()))
    thread.start()
    thread.join()
    assert mx.abs(mx.array(found[0]) - expected).max().item() < 1e-4
