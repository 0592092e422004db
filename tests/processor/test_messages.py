"""Messages: every key of an item is used or refused by name; what other programs write is translated."""

import re

import pytest
from PIL import Image
from support.media import picture, video_path

from mlx_smolvlm import SampledVideo
from mlx_smolvlm.processor.messages import read_conversation
from mlx_smolvlm.processor.prompt_media import Clip


def user(*content):
    return [{"role": "user", "content": list(content)}]


TEXT = {"type": "text", "text": "What is this?"}


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        ({"type": "image", "file": "a.png"}, "an image item with the unknown key 'file'; it takes image, path, url"),
        ({"type": "image", "path": "a.png", "fps": 2}, "an image item with the unknown key 'fps'"),
        ({"type": "video", "path": "a.mp4", "nframes": 8}, "unknown key 'nframes'; did you mean 'max_frames'?"),
        ({"type": "video", "path": "a.mp4", "max_frame": 8}, "unknown key 'max_frame'; did you mean 'max_frames'?"),
        ({"type": "video", "path": "a.mp4", "fps": 0}, "a video item whose fps is 0, expected a positive number"),
        ({"type": "image", "path": "a.png", "do_image_splitting": "no"}, "an image item whose do_image_splitting is"),
        ({"type": "image", "base64": b"x"}, "an image item whose base64 is b'x', expected text"),
        ({"type": "text", "text": "hi", "cache_control": {}}, "a text item with the unknown key 'cache_control'"),
        ({"type": "text", "txt": "hi"}, "a text item without 'text'"),
        ({"type": "image", 5: "a.png"}, "unknown key 5"),
        ("What is this?", 'write text as {"type": "text", "text": ...}'),
        # Anthropic's
        (
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 10**5}},
            'write {"type": "image", "base64": DATA}',
        ),
        (
            {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}},
            'write {"type": "image", "url": ADDRESS}',
        ),
        ({"type": "document", "source": {"type": "text"}}, 'write {"type": "image", "path": ...}'),
        # OpenAI's
        ({"type": "input_text", "text": "hi"}, 'write {"type": "text", "text": ...}'),
        ({"type": "input_image", "image_url": "x"}, 'write {"type": "image", "url": ...}'),
        ({"type": "video_url", "video_url": {"url": "x"}}, 'write {"type": "video", "url": ...}'),
        ({"type": "image_url", "image_url": {"url": "x", "detail": "low"}}, '"do_image_splitting": false for low'),
        (
            {"type": "image_url", "image_url": {"uri": "x"}},
            "image_url item with the unknown key 'uri'; did you mean",
        ),
        ({"type": "image_url", "image_url": {}}, "an image_url item without a url"),
        ({"type": "image_url", "url": "x"}, "an image_url item with the unknown key 'url'"),
    ],
)
def test_what_an_item_cannot_use_is_refused_by_name(item, problem):
    with pytest.raises(ValueError, match="^" + re.escape("messages[0] has ")) as caught:
        read_conversation(user(item, TEXT), [], [])
    assert problem in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([{"role": "user", "content": "hi", "images": ["a.png"]}], "messages[0] has the unknown key 'images'"),
        ([{"role": "user", "contents": "hi"}], "unknown key 'contents'; did you mean 'content'?"),
        ({"role": "user", "content": "hi"}, "put it in a list"),
        (b"hi", "messages are b'hi'"),
        (None, "messages are None"),
        ([{"role": "user" * 10**5, "content": "hi"}], "messages[0] has role 'useruser"),
        ([{"role": "user", "content": {"x": "y" * 10**5}}], "expected text or a list"),
        (["x" * 10**5], "messages[0] is 'xxx"),
    ],
)
def test_messages_are_refused_in_a_short_line(messages, problem):
    with pytest.raises(ValueError) as caught:
        read_conversation(messages, [], [])
    assert problem in str(caught.value)
    assert len(str(caught.value)) < 300


def test_columns_of_a_table_that_are_empty_do_not_count():
    empty = {"path": None, "fps": None, "file": None, "text": None}
    told = read_conversation(
        [{"role": "user", "content": [{**empty, **TEXT}, {**empty, "type": "image"}], "id": None}], ["a"], []
    )
    assert told == read_conversation(user(TEXT, {"type": "image", "path": "a"}), [], [])


@pytest.mark.parametrize("media", ["a.png", b"x", 5, {"a.png"}, Image.new("RGB", (2, 2)), [None]])
@pytest.mark.parametrize("name", ["images", "videos"])
def test_anything_but_a_list_of_media_is_refused(loaded, name, media):
    """A path would be taken letter by letter."""
    with pytest.raises(ValueError, match=rf"^{name}(\[0\])? is "):
        loaded("smolvlm_256m")[1]("hi", **{name: media})


def test_an_item_is_read_as_it_says(loaded):
    """And the others as the call says."""
    processor = loaded("smolvlm_256m")[1]
    clip = {"type": "video", "path": str(video_path("clip"))}
    items = [clip, {**clip, "fps": 2.0, "max_frames": 2}, {**clip, "start_s": 1.0}, {"type": "video", "max_frames": 1}]
    with processor.prepare(user(*items, TEXT), videos=[clip["path"]], fps=1.0, max_frames=3) as prompt:
        clips = [medium for medium in prompt.media if isinstance(medium, Clip)]
        assert [len(clip.sample.indices) for clip in clips] == [3, 2, 3, 1]
        assert clips[0].sample.timestamps_s[0] < 1 <= clips[2].sample.timestamps_s[0]
    image = {"type": "image", "image": picture("landscape")}
    smaller = processor.config.image.longest_edge // 2
    items = [image, {**image, "do_image_splitting": False}, {**image, "longest_edge": smaller}]
    tiles = [medium.num_tiles for medium in processor(user(*items, TEXT)).media]
    assert tiles[1] == 1 < tiles[2] < tiles[0]


def test_options_of_an_item_whose_frames_are_chosen_already_are_refused(loaded):
    video = SampledVideo([picture("second")], [0.5], 2, name="camera")
    with pytest.raises(ValueError, match="camera cannot be read with fps"):
        loaded("smolvlm_256m")[1](user({"type": "video", "fps": 1}, TEXT), videos=[video])
