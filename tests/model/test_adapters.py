"""Adapters without merging: the same logits as merged ones, whose weights are PEFT's (tests/convert), on every path."""

import shutil

import mlx.core as mx
import numpy as np
import pytest
from support.made_adapters import CASES, GATE, PLAIN, Q, write_peft
from support.media import picture

from mlx_smolvlm import load
from mlx_smolvlm.convert import QuantizationOptions, convert_checkpoint
from mlx_smolvlm.model.layers.adapted import AdaptedLinear

BASE = "smolvlm_256m"
HEAD, EMBEDDINGS = "lm_head", "model.text_model.embed_tokens"
VOCABULARY = {"tied": 443, BASE: 443}


def logits_of(pair) -> np.ndarray:
    """Of a question about an image, for every token of the prompt."""
    model, processor = pair
    inputs = processor("What is shown?", images=[picture("tiny")])
    return np.array(model(inputs.input_ids, inputs.pixel_values))


def assert_alike(found: np.ndarray, expected: np.ndarray) -> None:
    """float32 sums in another order; random networks amplify them a little."""
    assert np.abs(found - expected).max() < 2e-4 * np.abs(expected).max()


def at(model, path: str):
    """The layer at a path."""
    for name in path.split("."):
        model = model[int(name)] if name.isdigit() else model[name]
    return model


@pytest.fixture(scope="module")
def merged(tmp_path_factory, checkpoint):
    """A function from a base's name and adapters to the folder of the merged checkpoint."""
    folder = tmp_path_factory.mktemp("merged")

    def make(name, adapters, **options):
        target = folder / str(len(list(folder.iterdir())))
        convert_checkpoint(checkpoint(name), target, adapter_path=adapters, **options)
        return target

    return make


@pytest.fixture(scope="module")
def expected(merged):
    """A function from a golden adapter to the logits of the merged checkpoint."""
    known = {}

    def make(case):
        if case not in known:
            known[case] = logits_of(load(merged(BASE, PLAIN.parent / case), dtype="float32", fuse=False))
        return known[case]

    return make


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_the_merged_checkpoint(checkpoint, expected, case, fuse):
    pair = load(checkpoint(BASE), adapters=PLAIN.parent / case, dtype="float32", fuse=fuse)
    assert_alike(logits_of(pair), expected(case))
    assert any(isinstance(layer, AdaptedLinear) for layer in pair[0].modules())


@pytest.mark.skipif(shutil.which("g++") is None, reason="MLX compiles chains for a CPU with g++")
def test_the_paths_of_a_gpu_give_the_same(monkeypatch, checkpoint, expected):
    pair = load(checkpoint(BASE), adapters=PLAIN.parent / "dora", dtype="float32")
    monkeypatch.setattr(mx, "default_device", lambda: mx.gpu)
    assert_alike(logits_of(pair), expected("dora"))


@pytest.mark.parametrize("case", CASES)
def test_on_a_quantized_base_they_are_dense_arithmetic_on_its_dequantized_weights(tmp_path, checkpoint, case):
    convert_checkpoint(checkpoint(BASE), tmp_path / "four", quantization=QuantizationOptions(4, 32))
    adapter = PLAIN.parent / case
    convert_checkpoint(tmp_path / "four", tmp_path / "dense", adapter_path=adapter, dequantize=True)
    found = logits_of(load(tmp_path / "four", adapters=adapter, dtype="float32"))
    assert_alike(found, logits_of(load(tmp_path / "dense", dtype="float32")))


def test_weights_multiply_changes_and_changes_add_up(tmp_path, checkpoint, merged):
    other = write_peft(tmp_path / "other", {Q: (96, 96), GATE: (160, 96)})
    both = [(PLAIN, 0.7), (PLAIN.parent / "dora", -0.5), other]
    found = logits_of(load(checkpoint(BASE), adapters=both, dtype="float32"))
    assert_alike(found, logits_of(load(merged(BASE, both), dtype="float32")))
    assert_alike(found, logits_of(load(checkpoint(BASE), adapters=both[::-1], dtype="float32")))
    base = logits_of(load(checkpoint(BASE), dtype="float32"))
    assert_alike(logits_of(load(checkpoint(BASE), adapters=[(PLAIN.parent / "patterns", 0)], dtype="float32")), base)
    assert np.abs(found - base).max() > 0.01 * np.abs(base).max()


@pytest.mark.parametrize("module", [HEAD, EMBEDDINGS])
def test_a_tied_head_and_its_embeddings_change_apart_as_in_peft(tmp_path, checkpoint, merged, module):
    adapter = write_peft(tmp_path / "adapter", {module: (VOCABULARY["tied"], 96)})
    base, _ = load(checkpoint("tied"), dtype="float32")
    model, processor = load(checkpoint("tied"), adapters=adapter, dtype="float32")
    hidden, ids = mx.random.normal((1, 2, 96)), mx.array([[3, 5]])
    same_head = mx.array_equal(model.language_model.logits(hidden), base.language_model.logits(hidden))
    same_rows = mx.array_equal(model.language_model.embed_tokens(ids), base.language_model.embed_tokens(ids))
    assert [same_head.item(), same_rows.item()] == [module != HEAD, module == HEAD]
    pair = load(merged("tied", adapter), dtype="float32")
    assert not pair[0].config.tie_word_embeddings
    assert_alike(logits_of((model, processor)), logits_of(pair))


def test_the_base_is_shared_and_stays_what_it_is(checkpoint, expected):
    """Joined matrices are not joined twice: an adapter on a large model must not take its memory again."""
    from mlx_smolvlm.model.adapters.adapter_files import read_adapter
    from mlx_smolvlm.model.adapters.attaching import attach

    base, processor = load(checkpoint(BASE), dtype="float32")
    before = logits_of((base, processor))
    mx.clear_cache()
    held = mx.get_active_memory()
    adapted = attach(base, [(read_adapter(PLAIN.parent / "dora"), 1.0)])
    mx.clear_cache()
    layers = [layer for layer in adapted.modules() if type(layer) is AdaptedLinear]
    size = sum(layer[key].nbytes for layer in layers for key in ("lora_a", "lora_b", "gain"))
    assert mx.get_active_memory() - held < 4 * size + 2**14
    assert all(block.is_fused for block in adapted.language_model.modules() if hasattr(block, "is_fused"))
    assert np.array_equal(logits_of((base, processor)), before)
    assert_alike(logits_of((adapted, processor)), expected("dora"))


CHANGES = {
    "another layer": lambda block: block.__setitem__("up_proj", block["up_proj"]["base"]),
    "an array in its place": lambda block: block["up_proj"].__setitem__("lora_b", 0 * block["up_proj"]["lora_b"]),
    "a change in place": lambda block: block["up_proj"]["lora_b"].__imul__(0),
    "another base": lambda block: block["up_proj"]["base"].__setitem__(
        "weight", 0 * block["up_proj"]["base"]["weight"]
    ),
    "another gain": lambda block: setattr(block["up_proj"], "gain", None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_done_to_an_adapted_layer_takes_effect(checkpoint, change):
    fused, processor = load(checkpoint(BASE), adapters=PLAIN.parent / "dora", dtype="float32")
    plain, _ = load(checkpoint(BASE), adapters=PLAIN.parent / "dora", dtype="float32", fuse=False)
    before = logits_of((fused, processor))
    for model in (fused, plain):
        CHANGES[change](at(model, "language_model.layers.0.mlp"))
    assert_alike(logits_of((fused, processor)), logits_of((plain, processor)))
    assert np.abs(logits_of((fused, processor)) - before).max() > 1e-3 * np.abs(before).max()
    fused.language_model.fuse()
    assert_alike(logits_of((fused, processor)), logits_of((plain, processor)))
