"""One vocabulary of options: every field by one name everywhere, every contradiction refused by name."""

import argparse
import inspect
from dataclasses import fields
from typing import get_type_hints

import mlx.core as mx
import numpy as np
import pytest

from mlx_smolvlm import (
    BatchRequest,
    FetchPolicy,
    GenerationOptions,
    MediaOptions,
    Processor,
    Rows,
    Session,
    generate_batch,
    generate_text,
    stream_captions,
    stream_generate,
)
from mlx_smolvlm.command_line.arguments import (
    add_answer_arguments,
    add_media_arguments,
    generation_options,
    media_options,
)
from mlx_smolvlm.options import GenerationKeywords, MediaKeywords, quoted, resolve_options

ENTRY_POINTS = [
    stream_generate,
    generate_text,
    generate_batch,
    stream_captions,
    Session,
    Session.ask,
    Session.edit,
    Rows.add,
]


@pytest.mark.parametrize(
    ("options", "keywords"), [(GenerationOptions, GenerationKeywords), (MediaOptions, MediaKeywords)]
)
def test_keywords_are_the_fields(options, keywords):
    assert list(get_type_hints(keywords)) == [field.name for field in fields(options)]


@pytest.mark.parametrize("function", ENTRY_POINTS, ids=lambda function: function.__qualname__)
def test_every_entry_point_takes_the_same_options(function):
    parameters = inspect.signature(function).parameters
    assert {"options", "media_options", "keywords"} <= set(parameters)
    assert parameters["keywords"].kind is inspect.Parameter.VAR_KEYWORD


def test_keywords_take_the_place_of_what_the_objects_say():
    options, media = resolve_options(
        GenerationOptions(max_tokens=3, seed=1), MediaOptions(fps=2.0), {"seed": 2, "max_frames": 4}
    )
    assert (options.max_tokens, options.seed, media.fps, media.max_frames) == (3, 2, 2.0, 4)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"temprature": 1}, "there is no option 'temprature'; did you mean 'temperature'?"),
        ({"maxframes": 1}, "there is no option 'maxframes'; did you mean 'max_frames'?"),
        ({"x": 1}, "there is no option 'x'; see GenerationOptions and MediaOptions"),
    ],
)
def test_an_option_that_there_is_not_is_refused(loaded, keywords, message):
    for refused in (
        lambda: resolve_options(None, None, keywords),
        lambda: stream_generate(*loaded("tied"), "Hello", **keywords),
        lambda: generate_batch(*loaded("tied"), [], **keywords),
        lambda: Session(*loaded("tied"), **keywords),
        lambda: stream_captions(*loaded("tied"), "lavfi:testsrc2", "What?", **keywords),
        lambda: loaded("tied")[1]("Hello", **keywords),
    ):
        with pytest.raises(TypeError, match="^" + message.replace("?", r"\?")):
            refused()


@pytest.mark.parametrize("swapped", [(MediaOptions(), None), (None, GenerationOptions()), ({"seed": 1}, None)])
def test_objects_of_another_kind_are_refused(swapped):
    with pytest.raises(TypeError, match=r"expected (GenerationOptions|MediaOptions)"):
        resolve_options(*swapped, {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"json_schema": {}, "regex": "a"}, "json_schema and regex are both given"),
        ({"regex": "a", "stop": ["b"]}, "stop cannot be combined with json_schema or regex"),
        ({"regex": "a", "prompt_lookup_tokens": 4}, "prompt_lookup_tokens cannot be combined with json_schema"),
        ({"json_schema": {}, "max_kv_size": 64}, "max_kv_size cannot be combined with json_schema"),
        ({"kv_bits": 8, "max_kv_size": 64}, "kv_bits cannot be combined with max_kv_size"),
        ({"prompt_lookup_tokens": 4, "temperature": 1}, "prompt_lookup_tokens needs greedy answers"),
        ({"prompt_lookup_tokens": 4, "max_kv_size": 64}, "prompt_lookup_tokens cannot be combined with max_kv_size"),
        (
            {"continue_final_message": True, "apply_chat_template": False},
            "continue_final_message needs the chat template",
        ),
        ({"logprobs": 21}, "logprobs is 21, expected a whole number from 0 to 20 or None"),
        ({"logprobs": True}, "logprobs is True"),
        ({"max_tokens": True}, "max_tokens is True"),
        ({"max_tokens": "9"}, "max_tokens is '9'"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 10**400}, "top_p is 1000"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"stop": "text"}, "stop is 'text', expected a list"),
        ({"skip_special_tokens": 0}, "skip_special_tokens is 0, expected True or False"),
        ({"temperature": b"1"}, "temperature is b'1'"),
        ({"stop": 5}, "stop is 5, expected a list"),
        ({"json_schema": [1]}, r"json_schema is \[1\], expected an object"),
        ({"regex": 5}, "regex is 5, expected text or None"),
        ({"kv_bits": "8"}, "kv_bits is '8'"),
        ({"kv_group_size": 32}, "kv_group_size has no effect without kv_bits"),
        ({"quantized_kv_start": 8}, "quantized_kv_start has no effect without kv_bits"),
    ],
)
def test_what_cannot_be_heeded_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        GenerationOptions(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 0}, "fps is 0"),
        ({"fps": "fast"}, "fps is 'fast'"),
        ({"start_s": "soon"}, "start is 'soon', expected seconds"),
        ({"page": 0}, "page is 0, expected a whole number of at least 1"),
        ({"longest_edge": 4097}, "longest_edge is 4097, expected 1 to 4096 pixels"),
        ({"max_frames": 1.5}, "max_frames is 1.5"),
        ({"start_s": 4, "end_s": 4}, "start is 4 s and end 4 s, expected an end after the start"),
        ({"do_image_splitting": "no"}, "do_image_splitting is 'no'"),
        ({"fetch_policy": "public"}, "fetch_policy is 'public', expected a FetchPolicy or None"),
    ],
)
def test_media_options_out_of_range_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        MediaOptions(**options)


def test_options_are_of_the_types_that_they_declare():
    """Arrays of one number too; and true is no number, of whatever library."""
    options = GenerationOptions(temperature=2**33, top_p=mx.array(0.5), max_tokens=mx.array(3), seed=2**64 - 1)
    assert [type(value) for value in (options.temperature, options.top_p, options.max_tokens)] == [float, float, int]
    assert (options.temperature, options.seed) == (2.0**33, 2**64 - 1)
    assert GenerationOptions(skip_special_tokens=np.False_).skip_special_tokens is False
    assert MediaOptions(do_image_splitting=np.True_).do_image_splitting is True
    for name, value in (("temperature", np.True_), ("max_tokens", np.True_), ("top_k", mx.array(True))):
        with pytest.raises(ValueError, match=name):
            GenerationOptions(**{name: value})
    schemes = ["https"]
    policy = FetchPolicy(schemes=schemes)
    schemes.append("http")
    assert policy.schemes == ("https",)


@pytest.mark.parametrize("given", [{"options": {}}, {"media_options": {"fps": 1}}, {"options": MediaOptions()}])
def test_a_request_takes_options_objects_alone(given):
    with pytest.raises(TypeError, match=rf"{next(iter(given))} is \w+, expected "):
        BatchRequest("Hello", **given)


def test_numbers_of_numpy_are_numbers():
    options = GenerationOptions(max_tokens=np.int64(4), temperature=np.float32(0.5), seed=np.uint64(3))
    assert options == GenerationOptions(max_tokens=4, temperature=0.5, seed=3)
    media = MediaOptions(fps=np.float32(0.5), max_frames=np.int64(4), start_s=np.float64(1))
    assert [type(value) for value in vars(media).values() if value] == [float, int, float]  # as JSON takes them


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_bytes": "5"}, "max_bytes is '5'; pass a number above 0"),
        ({"timeout_s": None}, "timeout_s is None"),
        ({"max_redirects": 1.5}, "max_redirects is 1.5"),
        ({"schemes": "https"}, "schemes is 'https'; only"),
        ({"check_address": "private"}, "check_address is 'private'; pass a function"),
    ],
)
def test_limits_of_transfers_are_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=rf"^FetchPolicy\.{message}"):
        FetchPolicy(**fields)


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**6,
        ["x"] * 10**6,
        {"a": {"b": ["x" * 10**5] * 99}},
        [10**9999],
        np.zeros((99, 99)),
        b"x" * 10**6,
        "a\n\x1b",
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_in_a_message_is_short_and_on_one_line(value):
    assert len(quoted(value)) <= 100
    assert quoted(value).isprintable()
    assert quoted({"b": 1, "a": [None, "x"]}) in ("{'b': 1, 'a': [None, 'x']}", "{'a': [None, 'x'], 'b': 1}")


def test_the_command_line_can_say_every_option():
    """And what it leaves out has the defaults of the objects."""
    parser = argparse.ArgumentParser()
    add_media_arguments(parser)
    add_answer_arguments(parser)
    assert generation_options(parser.parse_args([])) == GenerationOptions()
    assert media_options(parser.parse_args([])) == MediaOptions()
    words = (
        "--max-tokens 3 --temperature 0.5 --top-p 0.9 --top-k 4 --min-p 0.1 --repetition-penalty 1.1 --seed 5 --stop x "
        "--keep-special-tokens --logprobs 2 --kv-bits 8 --kv-group-size 32 --quantized-kv-start 7 --prefill-chunk 9 "
        "--ignore-chat-template --no-split --max-edge 99 --max-pixels 9 --page 2 --fps 2 "
        "--max-frames 8 --start 1 --end 2 --hardware-decoding"
    )
    arguments = parser.parse_args(words.split())
    set_apart = {
        "json_schema",
        "regex",
        "prompt_lookup_tokens",
        "max_kv_size",
        "continue_final_message",
        "fetch_policy",
    }
    for options in (generation_options(arguments), media_options(arguments)):
        for field in fields(options):
            assert (getattr(options, field.name) == field.default) == (field.name in set_apart), field.name
    arguments = parser.parse_args(["--speculate", "4"])
    assert generation_options(arguments).prompt_lookup_tokens == 4
    arguments = parser.parse_args(["--max-kv-size", "64", "--continue-final-message"])
    assert generation_options(arguments) == GenerationOptions(max_kv_size=64, continue_final_message=True)


def test_a_fetch_policy_reaches_images_and_videos(loaded):
    """An address that the policy refuses is refused wherever it stands; nothing is sent."""

    def refuse(address):
        raise ValueError(f"{address} is not for us")

    processor: Processor = loaded("smolvlm_256m")[1]
    policy = FetchPolicy(check_address=refuse)
    for media in ({"images": ["http://127.0.0.1:9/a.png"]}, {"videos": ["http://127.0.0.1:9/a.mp4"]}):
        with pytest.raises(ValueError, match=r"127\.0\.0\.1 is not for us"):
            processor("What?", **media, fetch_policy=policy)
