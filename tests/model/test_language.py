"""The fused decoder against the plain one: the same values in fewer kernels. What makes the plain one right are the
reference's values (`test_networks.py`, `test_goldens.py`), which it is held to as well."""

import time

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from support.golden_cases import CHECKPOINT_NAMES, golden_cases

import mlx_smolvlm
from mlx_smolvlm.benchmark.kernels import kernels_per_token
from mlx_smolvlm.model.config import RopeScaling, TextConfig
from mlx_smolvlm.model.language import LanguageModel
from mlx_smolvlm.model.layers import rotary
from mlx_smolvlm.model.layers.fusing import Joints, join
from mlx_smolvlm.model.layers.projections import product
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


def hidden_and_tokens(model, ids: list[int], count: int) -> tuple[mx.array, list[int]]:
    """Hidden states of a prompt, and the greedy tokens after it."""
    cache, tokens = model.make_cache(), []
    hidden = prompt = model(model.embed_tokens(mx.array(ids))[None], cache)
    for _ in range(count):
        tokens.append(int(model.logits(hidden[:, -1]).argmax().item()))
        hidden = model(model.embed_tokens(mx.array(tokens[-1:]))[None], cache)
    return prompt, tokens


@pytest.mark.parametrize("name", CHECKPOINT_NAMES)
def test_the_fused_decoder_computes_what_the_plain_one_computes(checkpoint, name):
    ids = golden_cases(name)["text"]["input_ids"]
    models = [mlx_smolvlm.load(checkpoint(name), dtype="float32", fuse=fuse)[0] for fuse in (True, False)]
    fused, tokens = hidden_and_tokens(models[0].language_model, ids, 24)
    plain, expected = hidden_and_tokens(models[1].language_model, ids, 24)
    assert tokens == expected
    assert mx.abs(fused - plain).max().item() < 1e-4  # float32, values of about 3
    paths = [[path for path, _ in tree_flatten(model.parameters())] for model in models]
    assert paths[0] == paths[1]


def rotated(x: mx.array, position: int, theta: float, scaling: RopeScaling | None) -> np.ndarray:
    """One head, (head_dim,), at a position: transformers' `apply_rotary_pos_emb` in float64, with Llama 3's scaling."""
    half = x.shape[0] // 2
    periods = theta ** (np.arange(half) / half)
    if scaling:
        lengths = 2 * np.pi * periods
        longest = scaling.original_max_position_embeddings / scaling.low_freq_factor
        shortest = scaling.original_max_position_embeddings / scaling.high_freq_factor
        share = scaling.original_max_position_embeddings / lengths - scaling.low_freq_factor
        share /= scaling.high_freq_factor - scaling.low_freq_factor
        between = 1 / ((1 - share) / (scaling.factor * periods) + share / periods)
        stretched = np.where(lengths > longest, scaling.factor * periods, between)
        periods = np.where(lengths < shortest, periods, stretched)
    left, right = np.split(np.array(x, np.float64), 2)
    cos, sin = np.cos(position / periods), np.sin(position / periods)
    return np.concatenate([left * cos - right * sin, right * cos + left * sin])


@pytest.mark.parametrize("scaling", [None, RopeScaling(8.0, 1.0, 4.0, 64)])
@pytest.mark.parametrize("device", [mx.cpu, mx.gpu])
def test_queries_and_keys_are_rotated_by_position_and_values_left_alone(monkeypatch, device, scaling):
    config = TextConfig(512, 64, 160, 1, 4, 2, 16, 8192, 1e-5, 1e5, scaling)
    heads = mx.random.normal((3 * 8, 1, 16), key=mx.random.key(1))
    monkeypatch.setattr(rotary.mx, "default_device", lambda: device)
    turned = RotaryEmbedding(config).at(np.arange(200, 203))(heads).reshape(3, 8, 16)
    given = heads.reshape(3, 8, 16)
    assert mx.array_equal(turned[:, 6:], given[:, 6:])
    for token in range(3):
        for head in range(6):
            expected = rotated(given[token, head], 200 + token, 1e5, scaling)
            assert np.abs(np.array(turned[token, head]) - expected).max() < 1e-4  # sines of angles of up to 200


@pytest.mark.parametrize(("bits", "most"), [(0, 303), (4, 366)])
def test_a_token_of_30_layers_takes_few_kernels(bits, most):
    """Ten a layer, twelve if quantized; separate matrices, rotations and sums would make it seventeen."""
    assert kernels_per_token(built(DEEP, bits)) <= most


@pytest.mark.slow
def test_a_step_is_built_in_much_less_time_than_a_plain_one(monkeypatch):
    """Python's share: the pieces that a GPU has as one primitive are stood in for by one. The least of many tries."""
    models = [built(DEEP), built(DEEP, fused=False)]
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
    assert least[0] < 0.7 * least[1]


def test_layers_of_different_formats_are_joined_as_far_as_they_agree():
    def layer(bits, seed):
        weight = mx.random.normal((8, 64), key=mx.random.key(seed))
        linear = nn.Linear(64, 8, bias=False)
        linear.weight = weight
        return nn.QuantizedLinear.from_linear(linear, 32, bits) if bits else linear

    x = mx.random.normal((1, 3, 64), key=mx.random.key(9))
    for formats, joined in [((4, 4, 4), 1), ((4, 4, 6), 2), ((4, 8, 4), 3), ((0, 0, 8), 2), ((0, 0, 0), 1)]:
        layers = [layer(bits, seed) for seed, bits in enumerate(formats)]
        separate = mx.concatenate([one(x) for one in layers], axis=-1)
        results = join(layers, Joints())
        assert len(results) == joined
        assert mx.array_equal(mx.concatenate([one(x) for one in layers], axis=-1), separate)
        assert mx.allclose(mx.concatenate([one(x) for one in results], axis=-1), separate, atol=1e-5)


def test_a_model_of_mixed_formats_computes_the_same_fused():
    def choice(path, module):
        return hasattr(module, "to_quantized") and {"group_size": 32, "bits": 8 if "v_proj" in path else 4}

    model = built(DEEP, fused=False)
    nn.quantize(model, class_predicate=choice)
    before = hidden_and_tokens(model, [1, 2, 3], 8)
    model.fuse()
    assert model.layers[0].self_attn.is_fused
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
    assert attention.is_fused
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
