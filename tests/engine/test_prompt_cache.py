"""What was read is not read again, and the answers stay those of a fresh start."""

import numpy as np
import pytest
from support.media import picture, video_path

import mlx_smolvlm.media.video.frames
import mlx_smolvlm.processor.prompt_media
from mlx_smolvlm import FeatureCache, PromptCache, stream_generate

QUESTIONS = ["What happens?", "And then?", "Which colours are there?"]


def answer(pair, messages, **options):
    steps = list(stream_generate(*pair, messages, max_tokens=8, **options))
    return [step.token_id for step in steps], "".join(step.text for step in steps)


def user(text: str, *media: dict) -> dict:
    return {"role": "user", "content": [*media, {"type": "text", "text": text}]}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


@pytest.fixture
def pair(loaded):
    return loaded("smolvlm_256m")


@pytest.fixture
def work(pair, monkeypatch):
    """Counts of decoded videos, cut pictures, encoded tiles and prompt tokens read."""
    counts = {"videos": 0, "pictures": 0, "tiles": 0, "tokens": 0}

    def counting(module, name, key, amount):
        original = getattr(module, name)

        def wrapper(*args, **options):
            counts[key] += amount(*args)
            return original(*args, **options)

        monkeypatch.setattr(module, name, wrapper)

    counting(mlx_smolvlm.media.video.frames, "read_frames", "videos", lambda *_: 1)
    counting(mlx_smolvlm.processor.prompt_media, "cut_grid", "pictures", lambda *_: 1)
    model = type(pair[0])
    counting(model, "image_features", "tiles", lambda _, pixels: len(pixels))
    counting(model, "input_embeddings", "tokens", lambda _, ids, features: len(ids))
    return counts


@pytest.mark.parametrize(
    "media",
    [
        [{"type": "video", "path": str(video_path("clip"))}],
        [{"type": "image", "image": picture("landscape")}],
        [{"type": "video", "path": str(video_path("clip"))}, {"type": "image", "image": picture("portrait")}],
        [{"type": "video", "path": str(video_path("clip"))}, {"type": "video", "path": str(video_path("short"))}],
    ],
    ids=["video", "picture", "video and picture", "two videos"],
)
def test_follow_up_questions_read_only_what_is_new(pair, work, media):
    cache, messages = PromptCache(), [user(QUESTIONS[0], *media)]
    _, text = answer(pair, messages, prompt_cache=cache)
    for question in QUESTIONS[1:]:
        messages += [assistant(text), user(question)]
        expected = answer(pair, messages)
        work.update(videos=0, pictures=0, tiles=0, tokens=0)
        ids, text = answer(pair, messages, prompt_cache=cache)
        assert (ids, text) == expected
        assert (work["videos"], work["pictures"], work["tiles"]) == (0, 0, 0)
        assert work["tokens"] < 60


def test_pictures_are_recognised_by_content(pair, work, tmp_path):
    path = tmp_path / "copy.png"
    picture("landscape").save(path)
    cache = PromptCache()
    answer(pair, "What is this?", images=[picture("landscape")], prompt_cache=cache)
    work.update(tiles=0)
    answer(pair, "What is this for?", images=[str(path)], prompt_cache=cache)
    assert work["tiles"] == 0


def test_another_picture_of_the_same_shape_is_read_again(pair):
    first = picture("landscape")
    second = first.transpose(0)
    cache = PromptCache()
    answer(pair, "What is this?", images=[first], prompt_cache=cache)
    assert answer(pair, "What is this?", images=[second], prompt_cache=cache) == answer(
        pair, "What is this?", images=[second]
    )


def test_the_second_of_two_pictures_may_change(pair, work):
    first, second, third = picture("landscape"), picture("second"), picture("second").transpose(0)
    cache = PromptCache()
    answer(pair, "Compare.", images=[first, second], prompt_cache=cache)
    expected = answer(pair, "Compare.", images=[first, third])
    work.update(pictures=0)
    assert answer(pair, "Compare.", images=[first, third], prompt_cache=cache) == expected
    assert work["pictures"] == 1


def test_an_edited_question_and_a_repeated_one(pair):
    cache = PromptCache()
    clip = {"type": "video", "path": str(video_path("clip"))}
    for question in ("What happens?", "Where does it happen?", "Where does it happen?", "What happens?"):
        messages = [user(question, clip)]
        assert answer(pair, messages, prompt_cache=cache) == answer(pair, messages)


def test_a_closed_generation_leaves_a_cache_that_can_go_on(pair):
    cache, image = PromptCache(), picture("landscape")
    steps = stream_generate(*pair, "What is this?", images=[image], max_tokens=8, prompt_cache=cache)
    next(steps), next(steps)
    steps.close()
    assert answer(pair, "What is that?", images=[image], prompt_cache=cache) == answer(
        pair, "What is that?", images=[image]
    )


def test_a_cache_serves_one_model(pair, loaded):
    cache, features = PromptCache(), FeatureCache()
    answer(pair, "Hello", images=[picture("tiny")], prompt_cache=cache, feature_cache=features)
    for option in ({"prompt_cache": cache}, {"feature_cache": features}):
        with pytest.raises(ValueError, match="another model"):
            answer(loaded("tied"), "Hello", images=[picture("tiny")], **option)


def test_tiles_that_were_seen_are_not_encoded_again(pair, work):
    features = FeatureCache()
    expected = answer(pair, "What is this?", images=[picture("landscape")], feature_cache=features)
    first = work["tiles"]
    work.update(tiles=0)
    assert first > 1
    assert answer(pair, "What is this?", images=[picture("landscape")], feature_cache=features) == expected
    assert work["tiles"] == 0


def test_equal_tiles_of_one_prompt_are_encoded_once(pair, work):
    blank = np.full((400, 900, 3), 255, np.uint8)
    answer(pair, "What is this?", images=[blank])
    assert work["tiles"] == 1


def test_features_stay_within_their_bytes(pair):
    features = FeatureCache(max_bytes=3000)
    answer(pair, "What is this?", images=[picture("landscape")], feature_cache=features)
    assert 0 < features.size_bytes <= 3000
