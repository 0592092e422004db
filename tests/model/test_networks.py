"""Each network against the reference's values on the same picture, and the cache against no cache."""

import mlx.core as mx
import numpy as np
import pytest
from support.golden_cases import CHECKPOINT_NAMES, GOLDENS, golden_cases, with_media

from mlx_smolvlm.model.connector import pixel_shuffle
from mlx_smolvlm.model.vision import PatchEmbeddings

# Both sides compute in float32 and sum in another order: errors grow with depth, and stay a hundred times
# below what a wrong position, a transposed kernel or a missing bias causes (0.1 and more).
TOLERANCE = {"patch_embeddings": 1e-5, "vision": 1e-4, "image_features": 1e-4, "text": 1e-3, "logits": 2e-3}


@pytest.fixture(params=[(name, fuse) for name in CHECKPOINT_NAMES for fuse in (True, False)], ids=str)
def stages(request, loaded):
    """(our stages, the reference's) for the case `landscape`, with the decoder fused and plain."""
    name, fuse = request.param
    model, processor = loaded(name, fuse=fuse)
    golden = np.load(GOLDENS / f"{name}.npz")
    inputs = processor(with_media(golden_cases(name)["landscape"]["messages"]))
    pixels = mx.array(inputs.pixel_values)
    patches = model.vision_model.embeddings(pixels.astype(mx.float32) / 127.5 - 1)
    encoded = model.vision_model(pixels)
    features = model.connector(encoded)
    flat = features.reshape(-1, features.shape[-1])
    hidden = model.language_model(model.input_embeddings(inputs.input_ids, flat), model.make_cache())
    ours = {
        "patch_embeddings": patches,
        "vision": encoded,
        "image_features": features,
        "text": hidden[0, -4:],
        "logits": model.language_model.logits(hidden)[0, -1],
    }
    return {stage: np.array(value) for stage, value in ours.items()}, golden


def test_every_stage_equals_the_reference(stages):
    ours, golden = stages
    tiles, patches = golden["tile_index"], golden["patch_index"]
    compared = {
        "patch_embeddings": (ours["patch_embeddings"][tiles][:, patches], golden["patch_embeddings"]),
        "vision": (ours["vision"][tiles][:, patches], golden["vision_last_hidden_state"]),
        "image_features": (ours["image_features"][tiles], golden["image_features"]),
        "text": (ours["text"], golden["text_last_hidden_state"]),
        "logits": (ours["logits"], golden["logits"]),
    }
    errors = {stage: float(np.abs(mine - reference).max()) for stage, (mine, reference) in compared.items()}
    assert {stage: error for stage, error in errors.items() if error > TOLERANCE[stage]} == {}


def test_pixel_shuffle_folds_blocks_row_by_row():
    blocks = pixel_shuffle(mx.arange(16).reshape(1, 16, 1), 2)
    assert blocks.tolist() == [[[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]]


@pytest.mark.parametrize("patches", [15, 9])
def test_pixel_shuffle_refuses_a_grid_that_does_not_fold(patches):
    with pytest.raises(ValueError, match=f"divisible by 2, got {patches} patches"):
        pixel_shuffle(mx.zeros((1, patches, 4)), 2)


def test_patch_embedding_is_the_convolution(loaded):
    module = loaded("smolvlm2_2b")[0].vision_model.embeddings.patch_embedding
    assert isinstance(module, PatchEmbeddings)
    pixels = mx.random.normal((2, 384, 384, 3), key=mx.random.key(0))
    convolved = mx.conv2d(pixels, module.weight, stride=14).reshape(2, 27 * 27, -1) + module.bias
    assert mx.abs(module(pixels) - convolved).max().item() < 1e-5  # float32, sums of 588 products


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("name", CHECKPOINT_NAMES)
def test_cached_decoding_equals_uncached(loaded, name, fuse):
    model, _ = loaded(name, fuse=fuse)
    ids = golden_cases(name)["text"]["input_ids"]
    whole = model(ids)[0]
    cache = model.make_cache()
    single = mx.concatenate([model([token], cache=cache)[0] for token in ids])
    assert mx.abs(whole - single).max().item() < 2e-3  # logits of about 4; float32 sums in another order


def test_cache_keeps_what_it_holds_when_it_grows(loaded):
    model, _ = loaded("smolvlm_256m")
    ids = [5 + i % 200 for i in range(600)]  # past two steps of the buffer
    cache = model.make_cache()
    parts = [model(ids[start : start + 150], cache=cache)[0] for start in range(0, 600, 150)]
    assert cache[0].offset == 600
    assert mx.abs(mx.concatenate(parts) - model(ids)[0]).max().item() < 2e-3


def test_as_many_features_as_image_tokens_are_needed(loaded):
    model, _ = loaded("smolvlm_256m")
    with pytest.raises(ValueError, match="0 image tokens but 2 image features"):
        model.input_embeddings([1, 2, 3], mx.zeros((2, 96)))
