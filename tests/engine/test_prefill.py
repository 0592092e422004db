"""Reading a prompt while its media are being made."""

import threading
import time
import warnings
from functools import cached_property
from itertools import product

import av
import numpy as np
import pytest
from support.media import picture, video_path
from support.slow_cases import quick_and_slow

import mlx_smolvlm.engine.prefill
from mlx_smolvlm import PromptCache, SampledVideo, SmolVLM, stream_generate
from mlx_smolvlm.processor.prompt_media import Clip, LoadedImage


@pytest.fixture
def pair(loaded):
    return loaded("smolvlm_256m")


def answer(pair, **options):
    steps = list(stream_generate(*pair, "What happens?", max_tokens=12, **options))
    return steps[-1].prompt_ids, [step.token_id for step in steps]


def all_at_once(pair, inputs) -> list[int]:
    """Greedy tokens of the plain path: every tile encoded, then the whole prompt read."""
    model, ids = pair[0], []
    cache = model.make_cache()
    logits = model(inputs.input_ids, inputs.pixel_values, cache)
    for _ in range(12):
        ids.append(int(logits[0, -1].argmax().item()))
        if ids[-1] in pair[1].stop_token_ids:
            break
        logits = model([ids[-1]], None, cache)
    return ids


@pytest.mark.parametrize(
    ("chunk", "tiles_per_step"), quick_and_slow(product([1, 7, 512], [1, 3, 100]), [(7, 3), (512, 1)])
)
def test_reading_bit_by_bit_gives_the_tokens_of_reading_at_once(pair, monkeypatch, chunk, tiles_per_step):
    monkeypatch.setattr(mlx_smolvlm.engine.prefill, "tiles_per_step", lambda _: tiles_per_step)
    media = {"images": [picture("landscape"), picture("tiny")], "videos": [str(video_path("clip"))]}
    inputs = pair[1]("What happens?", **media)
    assert answer(pair, prefill_chunk=chunk, **media) == (inputs.input_ids, all_at_once(pair, inputs))


def test_tiles_are_encoded_while_later_ones_are_still_being_made(pair, monkeypatch):
    """With frames that take time to come, the encoder begins before the last one."""
    events = []

    def slow(clip, check_cancelled, tiles=Clip.tiles):
        for tile in tiles(clip, check_cancelled):
            time.sleep(0.02)
            events.append("frame")
            yield tile

    image_features = SmolVLM.image_features

    def encode(model, pixels):
        events.append("encode")
        return image_features(model, pixels)

    monkeypatch.setattr(Clip, "tiles", slow)
    monkeypatch.setattr(SmolVLM, "image_features", encode)
    answer(pair, videos=[str(video_path("long"))], fps=5, max_frames=20)
    assert events.index("encode") < len(events) - 1 - events[::-1].index("frame")


def test_encoding_begins_with_the_first_tile_and_steps_stay_within_memory(pair, monkeypatch):
    sizes = []
    image_features = SmolVLM.image_features

    def encode(model, pixels):
        sizes.append(len(pixels))
        return image_features(model, pixels)

    monkeypatch.setattr(SmolVLM, "image_features", encode)
    answer(pair, images=[picture("landscape")])
    assert sizes == [1, 2, 4, 6]  # 13 tiles, at most 8 at a time

    vision = pair[0].config.vision
    patches = vision.patches_per_side**2
    states = 3 * vision.intermediate_size + 4 * vision.hidden_size
    tile_bytes = 4 * patches * (states + 2 * vision.num_attention_heads * patches)
    for budget, most in ((3 * tile_bytes, 3), (tile_bytes // 2, 1)):
        monkeypatch.setattr(mlx_smolvlm.engine.prefill, "ENCODER_BYTES", budget)
        sizes.clear()
        answer(pair, images=[picture("landscape")])
        assert (sum(sizes), max(sizes)) == (13, most)


def test_pictures_are_hashed_while_tiles_are_encoded(pair, monkeypatch):
    """Hashing a photo takes about as long as a GPU needs for a tile: the first token should not wait for it."""
    threads = []

    def digest(picture, original=LoadedImage.digest.func):
        threads.append(threading.current_thread().name)
        return original(picture)

    hashed = cached_property(digest)
    hashed.__set_name__(LoadedImage, "digest")
    monkeypatch.setattr(LoadedImage, "digest", hashed)
    answer(pair, images=[picture("landscape")])
    assert threads == ["mlx_smolvlm prefetch"]


class BreaksOff:
    """Makes the first clip of a prompt end after some frames."""

    def __init__(self, monkeypatch, frames: int):
        def tiles(clip, check_cancelled, original=Clip.tiles):
            for number, tile in enumerate(original(clip, check_cancelled)):
                if number == frames:
                    return
                yield tile

        monkeypatch.setattr(Clip, "tiles", tiles)


@pytest.mark.parametrize("tiles_per_step", [1, 4])
def test_a_video_that_breaks_off_is_told_as_long_as_it_is(pair, monkeypatch, tiles_per_step):
    """The prompt states the number of frames before the frames: it is read again, with one warning."""
    monkeypatch.setattr(mlx_smolvlm.engine.prefill, "tiles_per_step", lambda _: tiles_per_step)
    BreaksOff(monkeypatch, 2)
    media = {"videos": [str(video_path("long"))], "images": [picture("landscape")]}
    with pytest.warns(UserWarning, match="breaks off: 2 of") as caught:
        given = answer(pair, **media)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inputs = pair[1]("What happens?", **media)
    assert inputs.media[-1].num_tiles == 2 or inputs.media[0].num_tiles == 2
    assert given == (inputs.input_ids, all_at_once(pair, inputs))


def test_a_follow_up_to_a_video_that_broke_off(pair, monkeypatch):
    BreaksOff(monkeypatch, 2)
    cache, media = PromptCache(), {"videos": [str(video_path("long"))]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = answer(pair, prompt_cache=cache, **media)
        assert answer(pair, prompt_cache=cache, **media) == first


def test_frames_that_the_caller_decoded_give_the_prompt_of_the_file(pair):
    path = video_path("clip")
    expected = pair[1]("What happens?", videos=[str(path)])
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    rate, count = len(frames) / 5, expected.media[0].num_tiles
    indices = np.linspace(0, len(frames) - 1, count).astype(int)
    video = SampledVideo([frames[index] for index in indices], [index / rate for index in indices], 5.0)
    tiles = SampledVideo([pair[1].video_tile(frame) for frame in video.frames], video.timestamps_s, 5.0, are_tiles=True)
    for given in (video, tiles):
        inputs = pair[1]("What happens?", videos=[given])
        assert inputs.input_ids == expected.input_ids
        assert np.array_equal(inputs.pixel_values, expected.pixel_values)


@pytest.mark.parametrize(
    ("frames", "times", "message"),
    [([], [], "0 frames"), ([0], [0.0, 1.0], "one time stamp each"), ([0, 0], [1.0, 0.5], "ascending")],
)
def test_sampled_videos_must_make_sense(frames, times, message):
    with pytest.raises(ValueError, match=message):
        SampledVideo(frames, times, 2.0)


def test_tiles_of_another_size_are_refused(pair):
    video = SampledVideo([np.zeros((5, 5, 3), np.uint8)], [0.0], 1.0, are_tiles=True)
    with pytest.raises(ValueError, match=r"Processor\.video_tile"):
        pair[1]("What?", videos=[video])


def test_a_part_of_a_video_keeps_the_times_of_the_whole(pair):
    text = pair[1].decode(pair[1]("What?", videos=[str(video_path("long"))], start_s=3, end_s=6).input_ids)
    assert "three frames" in text
    assert "Frame from 00:03" in text
    assert "Frame from 00:05" in text
    assert "Frame from 00:02" not in text


def test_cancelling_and_closing_leave_no_thread_and_no_open_file(pair):
    cancel = threading.Event()
    steps = stream_generate(*pair, "What?", videos=[str(video_path("long"))], cancel=cancel)
    next(steps)
    steps.close()
    cancel.set()
    steps = list(stream_generate(*pair, "What?", videos=[str(video_path("long"))], cancel=cancel))
    assert [step.finish_reason for step in steps] == ["cancelled"]
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("mlx_smolvlm")] == []


def test_a_video_that_breaks_off_where_a_rotating_cache_cannot_go_back(pair, monkeypatch):
    """What was read before the video is forgotten with it: all is read again, earlier pictures too."""
    BreaksOff(monkeypatch, 2)
    cache, options = PromptCache(), {"max_tokens": 8, "max_kv_size": 24}
    question = [{"type": "image", "image": picture("tiny")}, {"type": "text", "text": "What is this?"}]
    messages = [{"role": "user", "content": question}]
    list(stream_generate(*pair, messages, prompt_cache=cache, **{**options, "max_tokens": 1}))
    held = len(cache.token_ids)
    messages += [
        {"role": "assistant", "content": "Red."},
        {"role": "user", "content": [{"type": "video", "path": str(video_path("long"))}]},
    ]
    trims = []
    monkeypatch.setattr(PromptCache, "trim", lambda self, n, trim=PromptCache.trim: (trims.append(n), trim(self, n)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = [step.token_id for step in stream_generate(*pair, messages, prompt_cache=cache, **options)]
        assert trims[0] == held  # the conversation was continued, until the video broke off
        assert 0 in trims
        assert given == [step.token_id for step in stream_generate(*pair, messages, **options)]
