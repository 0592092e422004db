"""Message items, options and schemas, mutated at random: each field is used or refused, never passed over."""

import json
import math
import random
import re
from dataclasses import fields

import numpy as np
import pytest
from support.layout import MODULES

from mlx_smolvlm import GenerationOptions, MediaOptions
from mlx_smolvlm.engine.structured import read_grammar
from mlx_smolvlm.options import resolve_options
from mlx_smolvlm.processor.messages import read_conversation

QUICK, ALL = 300, 10_000
COUNTS = [QUICK, pytest.param(ALL, marks=pytest.mark.slow)]

TEXT = {"type": "text", "text": "What?"}
ITEMS = [
    TEXT,
    {"type": "image", "path": "a.png"},
    {"type": "image", "url": "https://x.example/a.png", "longest_edge": 64},
    {"type": "image", "base64": "QUJD", "do_image_splitting": False, "page": 2},
    {"type": "image_url", "image_url": {"url": "a.png"}},
    {"type": "image_url", "image_url": "a.png"},
    {"type": "video", "path": "a.mp4", "fps": 2.0, "max_frames": 4},
    {"type": "video", "video": "a.mp4", "start_s": 1.0, "end_s": 2.0, "hardware_decoding": True},
]
KEYS = [
    *sorted({key for item in ITEMS for key in item}),
    *("file", "source", "images", "detail", "min_pixels", "nframes", "video_fps", "num_frames", "cache_control"),
    *("name", "Text", "pth", "fps ", "max_frame", "content", "data", "media_type", "input_image", ""),
]
VALUES = [
    *(None, True, False, 0, 1, 2, -1, 1.5, math.nan, math.inf, 2**70, "", "a", "b.png", "x" * 10_000, b"x", [], ["a"]),
    *({}, {"url": "b.png"}, {"type": "base64", "data": "x" * 10_000}),
    *(np.float32(2), np.int64(3), np.zeros((2, 2)), object()),
]


def one_line(error: Exception) -> None:
    """An error is one short line."""
    assert str(error).isprintable(), error
    assert 0 < len(str(error)) < 700, error


def outcome(messages, images=()):
    """What comes of messages: a comparable value, or None if they are refused in one line."""
    try:
        return repr(read_conversation(messages, list(images), []))
    except ValueError as error:
        one_line(error)
        return None


def mutated_item(rng):
    item = dict(rng.choice(ITEMS))
    for _ in range(rng.randint(1, 3)):
        key = rng.choice([*item, *rng.sample(KEYS, 2)])
        change = rng.choice(("set", "set", "drop", "rename"))
        if change == "set":
            item[key] = rng.choice(VALUES)
        elif change == "drop":
            item.pop(key, None)
        elif key in item:
            item[misspelt(rng, key)] = item.pop(key)
    return item


def misspelt(rng, name: str) -> str:
    place = rng.randrange(len(name) + 1)
    return rng.choice((name[:place] + name[place + 1 :], name[:place] + "x" + name[place:], name.upper(), f"{name}s"))


@pytest.mark.parametrize("count", COUNTS)
def test_every_key_of_an_item_is_used_or_refused(count):
    """Used: with the key left out, something else comes of it."""
    rng, accepted = random.Random(0), 0
    for _ in range(count):
        item = mutated_item(rng)
        for images in ([], ["given.png"]):
            found = outcome([{"role": "user", "content": [item, TEXT]}], images)
            if found is None:
                continue
            accepted += 1
            for key in (key for key, value in item.items() if value is not None):
                less = {name: value for name, value in item.items() if name != key}
                assert outcome([{"role": "user", "content": [less, TEXT]}], images) != found, (key, item)
    assert accepted > count / 20


@pytest.mark.parametrize("count", COUNTS)
def test_every_key_of_a_message_is_used_or_refused(count):
    rng = random.Random(1)
    for _ in range(count):
        message = {"role": rng.choice(("user", "assistant", "system")), "content": "hi"}
        key = rng.choice([*KEYS, misspelt(rng, "role"), misspelt(rng, "content")])
        value = rng.choice(VALUES)
        is_known = key in ("role", "content") or value is None
        assert (outcome([{**message, key: value}]) is None) or is_known, (key, value)


@pytest.mark.parametrize("count", COUNTS)
def test_every_option_is_kept_or_refused(count):
    rng, accepted = random.Random(2), 0
    names = [field.name for kind in (GenerationOptions, MediaOptions) for field in fields(kind)]
    likely = [1, 4, 32, 0.5, 2, True, False, "a", ["a"], {"type": "string"}, np.int64(8), np.float64(0.25)]
    for _ in range(count):
        chosen = rng.sample(names, rng.randint(1, 3))
        given = {name: rng.choice(likely if rng.random() < 0.8 else VALUES) for name in chosen}
        if rng.random() < 0.2:
            given[misspelt(rng, rng.choice(names))] = 1
        try:
            options, media = resolve_options(None, None, given)
        except (ValueError, TypeError) as error:
            one_line(error)
            assert isinstance(error, ValueError) or not set(given) <= set(names), error
            continue
        accepted += 1
        assert set(given) <= set(names)
        kept = {**vars(options), **vars(media)}
        for name, value in given.items():
            expected = tuple(value) if name == "stop" and value else value
            is_default = name == "stop" and value in (None, [])
            assert kept[name] == expected or is_default, (name, value)
            assert not isinstance(kept[name], np.generic), (name, value)
        assert options.kv_bits is not None or (options.kv_group_size, options.quantized_kv_start) == (64, 0)
    assert accepted > count / 20


def test_every_option_is_read_by_the_engine():
    """A field that nothing below the command lines reads would be ignored."""
    rooms = ("engine", "processor", "media", "model", "api")
    sources = "\n".join(path.read_text(encoding="utf-8") for name, path in MODULES.items() if name[0] in rooms)
    cached = {"kv_bits", "kv_group_size", "quantized_kv_start", "max_kv_size"}  # as `options.cache_options`
    assert "cache_options" in sources
    for kind in (GenerationOptions, MediaOptions):
        for field in fields(kind):
            assert field.name in cached or re.search(rf"options\.{field.name}\b", sources), field.name


SCHEMAS = [
    {"type": "object", "properties": {"a": {"type": "string", "maxLength": 3}}, "required": ["a"], "title": "A"},
    {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 9}, "minItems": 1, "maxItems": 2},
    {"$defs": {"c": {"enum": ["red"]}}, "properties": {"c": {"$ref": "#/$defs/c"}}, "additionalProperties": False},
    {"anyOf": [{"type": "boolean"}, {"type": "string", "pattern": "^a+$", "description": "b"}]},
    {"name": "n", "strict": True, "schema": {"type": "number", "multipleOf": 2}},
    {"type": "json_schema", "json_schema": {"name": "n", "schema": {"const": [1]}}},
]
DATA = {"enum", "const", "required", "default", "examples"}  # keywords whose values are no schemas


def schemas_in(schema):
    """Every object of a schema whose keys are keywords."""
    if isinstance(schema, dict):
        yield schema
        for keyword, value in schema.items():
            if keyword in ("properties", "$defs") and isinstance(value, dict):
                for inner in value.values():
                    yield from schemas_in(inner)
            elif keyword not in DATA:
                for inner in value if isinstance(value, list) else [value]:
                    yield from schemas_in(inner)


def grammar_of(schema):
    try:
        return read_grammar(GenerationOptions(json_schema=schema))
    except ValueError as error:
        one_line(error)
        return None


@pytest.mark.parametrize("count", COUNTS)
def test_every_keyword_of_a_schema_is_used_or_refused(count):
    pytest.importorskip("llguidance")
    rng = random.Random(3)
    known = {keyword for schema in SCHEMAS for part in schemas_in(schema) for keyword in part}
    for schema in SCHEMAS:
        assert grammar_of(schema) is not None, schema
    for _ in range(count):
        schema = json.loads(json.dumps(rng.choice(SCHEMAS)))
        part = rng.choice(list(schemas_in(schema)))
        keyword = rng.choice(list(part))
        if rng.random() < 0.6:
            renamed = misspelt(rng, keyword)
            part[renamed] = part.pop(keyword)
            assert renamed in known or grammar_of(schema) is None, schema
        else:
            before, old = grammar_of(schema), part[keyword]
            part[keyword] = rng.choice([value for value in VALUES if not isinstance(value, np.generic | np.ndarray)])
            grammar = grammar_of(schema)  # used, or refused in one line
            assert grammar != before or keyword in ("name", "strict") or part[keyword] == old, schema
