"""The whole path against the reference: prompt tokens, pixels and greedy tokens, on every geometry.

Greedy tokens also with the plain decoder (`load(fuse=False)`), and along the code paths that layers take on a GPU.
"""

import hashlib
import shutil

import mlx.core as mx
import numpy as np
import pytest
from support.golden_cases import CHECKPOINT_NAMES, GOLDENS, golden_cases, with_media
from support.slow_cases import slow

from mlx_smolvlm import stream_generate

CASES = [(name, case) for name in CHECKPOINT_NAMES for case in golden_cases(name)]


def prompt_of(case: dict) -> tuple:
    """(messages or text, options) of a golden case."""
    if "prompt_text" in case:
        return case["prompt_text"], {**case["options"], "apply_chat_template": False}
    return with_media(case["messages"]), case["options"]


@pytest.mark.parametrize(("name", "case_name"), CASES)
def test_prompt_tokens_and_pixels_equal_the_reference(loaded, name, case_name):
    case = golden_cases(name)[case_name]
    prompt, options = prompt_of(case)
    inputs = loaded(name)[1](prompt, **options)
    assert inputs.input_ids == case["input_ids"]
    if case["videos"]:
        assert [medium.num_tiles for medium in inputs.media] == [len(v["frame_indices"]) for v in case["videos"]]
        return
    start = 0
    for expected, medium in zip(case["images"], inputs.media, strict=True):
        tiles = inputs.pixel_values[start : start + medium.num_tiles]
        assert medium.num_tiles == expected["num_tiles"]
        assert hashlib.sha256(tiles.tobytes()).hexdigest() == expected["sha256"]
        start += medium.num_tiles


PICTURE_CASES = [(name, case) for name, case in CASES if not golden_cases(name)[case]["videos"]]
VIDEO_CASES = [(name, case) for name, case in CASES if golden_cases(name)[case]["videos"]]


# Enough to pass through every layer: the others are slow.
QUICK = ("text", "tiny")
SOME_PICTURE_CASES = [
    pytest.param(name, case, marks=[] if case in QUICK else pytest.mark.slow) for name, case in PICTURE_CASES
]
SOME_VIDEO_CASES = [
    pytest.param(name, case, marks=[] if case == "video_short" else pytest.mark.slow) for name, case in VIDEO_CASES
]


@pytest.fixture
def gpu_paths(monkeypatch):
    """Layers take the ways that they take on a GPU: MLX's rotation kernel, compiled chains, one stream."""
    if shutil.which("g++") is None:
        pytest.skip("MLX compiles chains for a CPU with g++")
    monkeypatch.setattr(mx, "default_device", lambda: mx.gpu)


def assert_greedy_tokens_equal_the_reference(model, processor, case: dict) -> None:
    prompt, options = prompt_of(case)
    steps = list(stream_generate(model, processor, prompt, max_tokens=32, **options))
    assert [step.token_id for step in steps] == case["generated_ids"]
    assert "".join(step.text for step in steps) == case["text"].removeprefix(" ")
    assert steps[-1].finish_reason == ("stop" if steps[-1].token_id in processor.stop_token_ids else "length")


def assert_tokens_are_the_likeliest(model, processor, case: dict) -> None:
    """Frames may differ by one level, which moves logits of random networks by a few hundredths: as much is allowed."""
    prompt, options = prompt_of(case)
    inputs = processor(prompt, **options)
    generated = case["generated_ids"]
    logits = np.array(model(inputs.input_ids + generated[:-1], inputs.pixel_values)[0, -len(generated) :])
    behind = logits.max(axis=-1) - logits[np.arange(len(generated)), generated]
    assert behind.max() < 0.05


# Of the geometries with 2 billion parameters, images in many tiles take long, and smaller ones have those, too.
LARGE = ("smolvlm2_2b", "smolvlm_2b_v1")
LONG = [(name, case) for name in LARGE for case in ("two_images", "square", "landscape")]


@pytest.mark.parametrize(("name", "case_name"), [slow(case) if case in LONG else case for case in PICTURE_CASES])
def test_greedy_tokens_and_text_equal_the_reference(loaded, name, case_name):
    assert_greedy_tokens_equal_the_reference(*loaded(name), golden_cases(name)[case_name])


@pytest.mark.parametrize(("name", "case_name"), SOME_PICTURE_CASES)
def test_greedy_tokens_of_the_plain_decoder_equal_the_reference(loaded, name, case_name):
    assert_greedy_tokens_equal_the_reference(*loaded(name, fuse=False), golden_cases(name)[case_name])


@pytest.mark.parametrize(("name", "case_name"), SOME_PICTURE_CASES)
def test_greedy_tokens_along_the_gpu_s_paths_equal_the_reference(loaded, gpu_paths, name, case_name):
    assert_greedy_tokens_equal_the_reference(*loaded(name), golden_cases(name)[case_name])


@pytest.mark.parametrize(("name", "case_name"), VIDEO_CASES)
def test_the_reference_s_tokens_are_the_likeliest_on_videos_too(loaded, name, case_name):
    assert_tokens_are_the_likeliest(*loaded(name), golden_cases(name)[case_name])


@pytest.mark.parametrize(("name", "case_name"), SOME_VIDEO_CASES)
def test_the_reference_s_tokens_are_the_likeliest_along_the_gpu_s_paths(loaded, gpu_paths, name, case_name):
    assert_tokens_are_the_likeliest(*loaded(name), golden_cases(name)[case_name])


def test_video_frames_equal_the_reference_within_rounding(loaded):
    """The reference resizes tensors, which round once where Pillow rounds twice: one level apart at most."""
    case = golden_cases("smolvlm_256m")["video_clip"]
    inputs = loaded("smolvlm_256m")[1](with_media(case["messages"]))
    expected = np.load(GOLDENS / "smolvlm_256m.npz")["video_clip_frames"].astype(int)
    difference = np.abs(inputs.pixel_values.astype(int) - expected)
    assert difference.max() <= 1
    assert difference.mean() < 0.05
