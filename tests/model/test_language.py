"""The fast decoder against the plain one of plain_language.py: the same values in fewer kernels."""

import time

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from support import plain_language
from support.golden_cases import CHECKPOINT_NAMES, golden_cases

import mlx_smolvlm
from mlx_smolvlm.benchmark.kernels import kernels_per_token
from mlx_smolvlm.model.config import RopeScaling, TextConfig
from mlx_smolvlm.model.language import LanguageModel
from mlx_smolvlm.model.layers import rotary
from mlx_smolvlm.model.layers.projections import fuse, product
from mlx_smolvlm.model.layers.rotary import RotaryEmbedding

DEEP = TextConfig(512, 64, 160, 30, 4, 2, 16, 8192, 1e-5, 1e5)  # 30 layers so narrow that only overhead counts


def built(config: TextConfig, bits: int = 0, fused: bool = True) -> LanguageModel:
    model = LanguageModel(config, tie_word_embeddings=False)
    if bits:
        nn.quantize(model, 32, bits)
    if fused:
        model.fuse()
    mx.eval(model.parameters())
    return model


def plain(checkpoint_folder) -> plain_language.LanguageModel:
    model, _ = mlx_smolvlm.load(checkpoint_folder, dtype="float32", fuse=False)
    config = model.config
    result = plain_language.LanguageModel(config.text, config.tie_word_embeddings)
    result.update(model.language_model.parameters())
    return result


def hidden_and_tokens(model, ids: list[int], count: int) -> tuple[mx.array, list[int]]:
    """Hidden states of a prompt, and the greedy tokens after it."""
    cache, tokens = model.make_cache(), []
    hidden = prompt = model(model.embed_tokens(mx.array(ids))[None], cache)
    for _ in range(count):
        tokens.append(int(model.logits(hidden[:, -1]).argmax().item()))
        hidden = model(model.embed_tokens(mx.array(tokens[-1:]))[None], cache)
    return prompt, tokens


@pytest.mark.parametrize("name", CHECKPOINT_NAMES)
@pytest.mark.parametrize("fused", [False, True])
def test_the_fast_decoder_computes_what_the_plain_one_computes(checkpoint, name, fused):
    ids = golden_cases(name)["text"]["input_ids"]
    model, _ = mlx_smolvlm.load(checkpoint(name), dtype="float32", fuse=fused)
    fast, tokens = hidden_and_tokens(model.language_model, ids, 24)
    slow, expected = hidden_and_tokens(plain(checkpoint(name)), ids, 24)
    assert tokens == expected
    assert mx.abs(fast - slow).max().item() < 1e-4  # float32, values of about 3


@pytest.mark.parametrize("scaling", [None, RopeScaling(8.0, 1.0, 4.0, 64)])
def test_rotation_is_the_same_on_both_devices_and_leaves_values_alone(monkeypatch, scaling):
    config = TextConfig(512, 64, 160, 1, 4, 2, 16, 8192, 1e-5, 1e5, scaling)
    heads = mx.random.normal((3 * 8, 1, 16), key=mx.random.key(1))
    on_cpu = RotaryEmbedding(config).at(np.arange(200, 203))(heads)
    monkeypatch.setattr(rotary.mx, "default_device", lambda: mx.gpu)
    on_gpu = RotaryEmbedding(config).at(np.arange(200, 203))(heads)
    assert mx.abs(on_cpu - on_gpu).max().item() < 1e-4  # sines of angles of up to 200
    values = on_gpu.reshape(3, 8, 16)[:, 6:]
    assert mx.array_equal(values, heads.reshape(3, 8, 16)[:, 6:])
    plainly = plain_language.RotaryEmbedding(config)(heads.reshape(1, 3, 8, 16).transpose(0, 2, 1, 3), 200)
    turned = on_gpu.reshape(1, 3, 8, 16).transpose(0, 2, 1, 3)
    assert mx.abs(plainly - turned)[:, :6].max().item() < 1e-4


@pytest.mark.parametrize(("bits", "most"), [(0, 303), (4, 366)])
def test_a_token_of_30_layers_takes_few_kernels(bits, most):
    """Ten a layer, twelve if quantized; separate matrices, rotations and sums would make it seventeen."""
    assert kernels_per_token(built(DEEP, bits)) <= most


@pytest.mark.slow
def test_a_step_is_built_in_much_less_time_than_a_plain_one(monkeypatch):
    """Python's share: the pieces that a GPU has as one primitive are stood in for by one. The least of many tries."""
    models = [built(DEEP), plain_language.LanguageModel(DEEP, tie_word_embeddings=False)]
    monkeypatch.setattr(mx.fast, "rms_norm", lambda x, weight, eps: mx.depends(x, weight))
    monkeypatch.setattr(mx.fast, "rope", lambda heads, *_, **__: mx.stop_gradient(heads))
    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", lambda q, k, v, **_: mx.depends(q, [k, v]))
    monkeypatch.setattr("mlx_smolvlm.model.language.compiled_on_gpu", lambda _: lambda gate, up: gate * up)
    monkeypatch.setattr(rotary.mx, "default_device", lambda: mx.gpu)

    def build_seconds(model) -> float:
        cache, spent = model.make_cache(), []
        for _ in range(100):
            start = time.perf_counter()
            token = mx.argmax(model.logits(model(model.embed_tokens(mx.array([3]))[None], cache)[:, -1]), axis=-1)
            spent.append(time.perf_counter() - start)
            mx.eval(token)
        return min(spent)

    least = [min(times) for times in zip(*([build_seconds(model) for model in models] for _ in range(4)), strict=True)]
    print(f"{1e3 * least[0]:.2f} ms, plainly {1e3 * least[1]:.2f} ms")
    assert least[0] < 0.65 * least[1]


def test_layers_of_different_formats_are_joined_as_far_as_they_agree():
    def layer(bits, seed):
        weight = mx.random.normal((8, 64), key=mx.random.key(seed))
        linear = nn.Linear(64, 8, bias=False)
        linear.weight = weight
        return nn.QuantizedLinear.from_linear(linear, 32, bits) if bits else linear

    x = mx.random.normal((1, 3, 64), key=mx.random.key(9))
    for formats, joined in [((4, 4, 4), 1), ((4, 4, 6), 2), ((4, 8, 4), 3), ((0, 0, 8), 2), ((0, 0, 0), 1)]:
        layers = [layer(bits, seed) for seed, bits in enumerate(formats)]
        results = fuse(layers)
        assert len(results) == joined
        separate = mx.concatenate([one(x) for one in layers], axis=-1)
        assert mx.allclose(mx.concatenate([one(x) for one in results], axis=-1), separate, atol=1e-5)


def test_a_model_of_mixed_formats_computes_the_same_fused():
    def choice(path, module):
        return hasattr(module, "to_quantized") and {"group_size": 32, "bits": 8 if "v_proj" in path else 4}

    model = built(DEEP, fused=False)
    nn.quantize(model, class_predicate=choice)
    before = hidden_and_tokens(model, [1, 2, 3], 8)
    model.fuse()
    assert [layer.bits for layer in model.layers[0].self_attn.qkv_proj] == [4, 8]
    after = hidden_and_tokens(model, [1, 2, 3], 8)
    assert mx.abs(before[0] - after[0]).max().item() < 1e-4
    assert before[1] == after[1]


def test_layers_can_be_replaced_before_they_are_joined_and_stay_apart():
    class Doubled(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def __call__(self, x):
            return 2 * self.inner(x)

    model = built(DEEP, fused=False)
    attention = model.layers[3].self_attn
    attention.k_proj = Doubled(attention.k_proj)
    attention.o_proj = Doubled(attention.o_proj)
    before = hidden_and_tokens(model, [1, 2, 3], 4)
    model.fuse()
    model.fuse()  # again changes nothing
    assert len(attention.qkv_proj) == 3
    after = hidden_and_tokens(model, [1, 2, 3], 4)
    assert mx.abs(before[0] - after[0]).max().item() < 1e-4


@pytest.mark.parametrize(("mode", "bits", "group_size"), [("affine", 4, 64), ("affine", 8, 32), ("mxfp4", 4, 32)])
def test_many_rows_give_what_few_rows_give_on_a_cpu(mode, bits, group_size):
    layer = nn.QuantizedLinear(64, 24, False, group_size, bits, mode)
    x = mx.random.normal((1, 9, 64), key=mx.random.key(2))
    rows = mx.concatenate([layer(x[:, i : i + 1]) for i in range(9)], axis=1)
    assert product([layer])(x).dtype == mx.float32
    assert mx.abs(product([layer])(x) - rows).max().item() < 1e-5


def test_loading_holds_no_more_than_one_layer_twice(checkpoint):
    folder = checkpoint("smolvlm_256m")
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    model, _ = mlx_smolvlm.load(folder, dtype="float32")
    held = mx.get_active_memory() - before
    layer = sum(array.nbytes for _, array in tree_flatten(model.language_model.layers[0].parameters()))
    assert mx.get_peak_memory() - before < held + 1.5 * layer
