"""Answers that keep to a JSON schema or a regular expression, from models that would never do so."""

import json
import re
import sys

import mlx.core as mx
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from support.media import picture
from support.slow_cases import quick_and_slow

from mlx_smolvlm import GenerationOptions, PromptCache, Session, generate_text, stream_generate
from mlx_smolvlm.engine.closing import Closer, Place
from mlx_smolvlm.engine.structured import GrammarConstraint, read_grammar

CAPTION = {
    "type": "object",
    "properties": {
        "caption": {"type": "string", "minLength": 3, "maxLength": 60},
        "people": {"type": "integer", "minimum": 0, "maximum": 100},
        "indoor": {"type": "boolean"},
        "tags": {"type": "array", "items": {"enum": ["day", "night", "dusk"]}, "minItems": 1, "maxItems": 4},
    },
    "required": ["caption", "people", "indoor", "tags"],
    "additionalProperties": False,
}
EXPRESSION = {
    "$defs": {
        "node": {
            "anyOf": [
                {"type": "number"},
                {
                    "type": "object",
                    "properties": {
                        "op": {"enum": ["+", "-"]},
                        "left": {"$ref": "#/$defs/node"},
                        "right": {"$ref": "#/$defs/node"},
                    },
                    "required": ["op", "left", "right"],
                    "additionalProperties": False,
                },
            ]
        }
    },
    "$ref": "#/$defs/node",
}
SCHEMAS = {
    "caption": CAPTION,
    "recursive": EXPRESSION,
    "anything": {},
    "any object": {"type": "object"},
    "children": {"type": "object", "properties": {"child": {"$ref": "#"}, "name": {"type": "string"}}},
    "pattern": {"type": "string", "pattern": "^[^x]*x$"},
    "narrow numbers": {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0.001, "maximum": 0.002}},
    "date": {"type": "object", "properties": {"day": {"type": "string", "format": "date"}}, "required": ["day"]},
}


@pytest.fixture
def pair(loaded):
    return loaded("smolvlm_256m")


def answer(pair, **options):
    steps = list(stream_generate(*pair, "Describe the picture.", temperature=1, **options))
    return "".join(step.text for step in steps), steps


def check(schema: dict, text: str) -> None:
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(json.loads(text))


@pytest.mark.parametrize("name", quick_and_slow(SCHEMAS, 2))
def test_every_answer_is_valid_under_its_schema(pair, name):
    for seed in range(4):
        max_tokens = (60, 75, 90)[seed % 3]
        text, steps = answer(pair, json_schema=SCHEMAS[name], max_tokens=max_tokens, seed=seed)
        check(SCHEMAS[name], text)
        assert len(steps) <= max_tokens


@pytest.mark.slow
def test_500_answers_are_valid_under_their_schemas(pair):
    for seed in range(500):
        schema = list(SCHEMAS.values())[seed % len(SCHEMAS)]
        text, _ = answer(pair, json_schema=schema, max_tokens=60 + seed % 60, seed=seed)
        check(schema, text)


@pytest.mark.parametrize("name", ["smolvlm2_2b", "idefics3"])
def test_other_tokenizers_and_vocabularies(loaded, name):
    for seed in range(2):
        text, _ = answer(loaded(name), json_schema=CAPTION, max_tokens=60, seed=seed)
        check(CAPTION, text)


def test_a_greedy_answer_about_a_picture(pair):
    options = {"images": [picture("landscape")], "json_schema": json.dumps(CAPTION), "max_tokens": 80}
    text = generate_text(*pair, "Describe the picture.", **options)
    check(CAPTION, text)
    assert generate_text(*pair, "Describe the picture.", **options) == text


@pytest.mark.parametrize(
    "regex", ["(yes|no)", r"\d{3}-\d{4}", "^(red|green)$", "a/b\nc", "[^a]*a", ".*the end", "é+[à-ü]{3}", '"[a-z]*"']
)
def test_every_answer_matches_its_expression(pair, regex):
    for seed in range(4):
        text, _ = answer(pair, regex=regex, max_tokens=25, seed=seed)
        assert re.fullmatch(regex, text), text


@pytest.mark.parametrize(
    "regex", ["[a-z]+( [a-z]+)*", "[a-z]+(, [a-z]+)*", "(ab)*", r"- .*(\n- .*)*", r"[0-9]+(\.[0-9]+)?"]
)
@pytest.mark.parametrize("max_tokens", [1, 2, 3, 8])
def test_a_complete_answer_that_could_go_on_is_left_at_that_in_time(pair, regex, max_tokens):
    for seed in range(8):
        try:
            text, steps = answer(pair, regex=regex, max_tokens=max_tokens, seed=seed)
        except ValueError as error:
            assert "raise max_tokens" in str(error)
            return
        assert re.fullmatch(regex, text), text
        assert len(steps) <= max_tokens


def test_a_token_that_would_open_a_complete_answer_again_too_late_ends_it(pair):
    processor = pair[1]
    grammar = read_grammar(GenerationOptions(regex="[a-z]+( [a-z]+)*"))
    constraint = GrammarConstraint(processor, pair[0].config.text.vocab_size, grammar, max_tokens=2)
    letter, space = (processor.tokenizer.encode(text, add_special_tokens=False).ids[-1] for text in ("a", "a "))
    assert constraint.take(letter) == letter
    assert not constraint.is_complete
    assert constraint.take(space) in processor.stop_token_ids
    assert constraint.is_complete
    assert constraint.is_cut


@pytest.mark.parametrize(
    "regex",
    [r"[^.]{20,200}\.", r".{30,120}[.!?]", r"[A-Z][^\n]{10,}\.", r"Title: .{10,60}\nSummary: .{20,200}\."],
)
def test_some_characters_and_then_a_certain_one_can_be_closed(pair, regex):
    for seed in range(2):
        text, _ = answer(pair, regex=regex, max_tokens=140, seed=seed)
        assert re.fullmatch(regex, text), text


def test_an_answer_that_has_room_ends_by_itself(pair):
    _, steps = answer(pair, regex="(yes|no)", max_tokens=25)
    assert steps[-1].finish_reason == "stop"
    assert len(steps) < 5


def test_an_answer_that_was_closed_in_time_says_so(pair):
    text, steps = answer(pair, json_schema={"type": "string"}, max_tokens=12, seed=3)
    assert steps[-1].finish_reason == "length"
    assert len(steps) == 12
    assert isinstance(json.loads(text), str)


def test_json_is_laid_out_as_json_dumps_does(pair):
    text, _ = answer(pair, json_schema=CAPTION, max_tokens=100, seed=1)
    assert text == json.dumps(json.loads(text), ensure_ascii=False)


def test_the_cache_holds_what_was_answered(pair):
    """Where a token had to be replaced, the layers must not keep what they read of it."""
    options = {"json_schema": {"type": "string"}, "max_tokens": 12, "temperature": 1.0, "seed": 3}
    cache = PromptCache()
    steps = list(stream_generate(*pair, "Hello", **options, prompt_cache=cache))
    assert steps[-1].finish_reason == "length"
    assert cache.token_ids == steps[-1].prompt_ids + [step.token_id for step in steps][:-1]
    fresh = PromptCache()
    rendered = pair[1].decode(cache.token_ids, skip_special_tokens=False)
    following = {
        kept: [step.token_id for step in stream_generate(*pair, rendered + " and", max_tokens=6, prompt_cache=kept)]
        for kept in (cache, fresh)
    }
    assert following[cache] == following[fresh]
    for held, expected in zip(cache.arrays().values(), fresh.arrays().values(), strict=True):
        np.testing.assert_allclose(held, expected, atol=1e-4)  # float32, read in other portions


def test_sessions_answer_in_form(pair):
    session = Session(*pair)
    form = GenerationOptions(max_tokens=60, temperature=1, seed=1, json_schema=CAPTION)
    text = "".join(step.text for step in session.ask("What is this?", images=[picture("landscape")], options=form))
    check(CAPTION, text)
    assert session.turns[0].answer == text
    assert list(session.ask("And freely?", options=GenerationOptions(max_tokens=3)))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"json_schema": "{"}, "the JSON schema is not JSON"),
        ({"json_schema": "[" * 100_000}, "the JSON schema is not JSON"),
        ({"json_schema": "[]"}, "expected an object"),
        ({"json_schema": {"type": "objct"}}, "Invalid type: objct"),
        ({"json_schema": {"uniqueItems": True}}, "uniqueItems"),
        ({"json_schema": {"$ref": "https://example.com/schema"}}, "cannot be enforced"),
        ({"json_schema": {"type": "integer", "minimum": 3, "maximum": 2}}, "Unsatisfiable"),
        ({"regex": "a(b"}, "unclosed group"),
        ({"regex": "a(?=b)"}, "look-around"),
        ({"regex": 5}, "regex is 5, expected text"),
        ({"regex": "a", "json_schema": {}}, "both given"),
        ({"regex": "a", "stop": ["b"]}, "stop cannot be combined"),
        ({"regex": "a", "prompt_lookup_tokens": 5}, "prompt_lookup_tokens cannot be combined with"),
        ({"json_schema": {}, "max_kv_size": 50}, "max_kv_size cannot be combined with"),
    ],
)
def test_faulty_forms_are_refused_at_once_with_one_line(pair, options, problem):
    with pytest.raises(ValueError) as caught:
        stream_generate(*pair, "Hello", **options)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 450


@pytest.mark.parametrize("form", [{"regex": "[a-z]{50}"}, {"json_schema": CAPTION}])
def test_an_answer_that_cannot_be_that_short_is_refused(pair, form):
    with pytest.raises(ValueError, match="within 10 tokens; raise max_tokens"):
        list(stream_generate(*pair, "Hello", **form, max_tokens=10))


def test_without_llguidance_the_error_says_what_to_install(pair, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ImportError, match="pip install llguidance"):
        stream_generate(*pair, "Hello", regex="yes")
    assert generate_text(*pair, "Hello", max_tokens=2)


# The parts


def test_allowed_tokens_are_those_of_the_form(pair):
    model, processor = pair
    vocab_size = model.config.text.vocab_size
    constraint = GrammarConstraint(processor, vocab_size, read_grammar(GenerationOptions(regex="[ab]")), 5)
    allowed = constraint.allowed()
    assert (allowed.shape, allowed.dtype) == ((1, vocab_size), mx.bool_)
    tokens = {processor.tokenizer.id_to_token(int(token)) for token in np.flatnonzero(allowed[0])}
    assert tokens == {"a", "b", "Ġ", "Ġa", "Ġb"}
    token = processor.tokenizer.token_to_id("a")
    assert constraint.take(token) == token
    assert constraint.is_complete
    assert not constraint.is_cut


@pytest.mark.parametrize(
    ("grammar", "text", "closing"),
    [
        ({"type": "object"}, '{"a', '": 0}'),
        ({"type": "object"}, '{"a\\', '"": 0}'),
        ({"type": "array", "minItems": 2}, "[", "0, 0]"),
        (SCHEMAS["children"], '{"child": {', "}}"),
        ("[^a]*a", "bcd", "a"),
        (".*the end", "and ", "the end"),
        ("(ab)*", "a", "b"),
    ],
)
def test_closing_completes_what_is_begun(pair, grammar, text, closing):
    import llguidance

    form = {"regex": grammar} if isinstance(grammar, str) else {"json_schema": grammar}
    source = read_grammar(GenerationOptions(**form))
    tokenizer = llguidance.LLTokenizer(pair[1].tokenizer.to_str(), eos_token=list(pair[1].stop_token_ids))
    matcher = llguidance.LLMatcher(tokenizer, source)
    assert matcher.consume_tokens(tokenizer.greedy_tokenize(text))
    closer = Closer(tokenizer, source)
    tokens = closer.closing(matcher, Place().after(text.encode()), 50)
    assert tokenizer.decode_str(tokens) == closing
    assert closer.closing(matcher, Place().after(text.encode()), len(tokens)) == tokens
    assert closer.closing(matcher, Place().after(text.encode()), len(tokens) - 1) is None


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"a": 1', Place(False)),
        ('{"a', Place(True)),
        ('{"a\\', Place(True, True)),
        ('{"a\\"', Place(True)),
        ('{"a\\\\"', Place(False)),
    ],
)
def test_places_in_json(text, place):
    assert Place().after(text.encode()) == place
    assert Place().after(text[:3].encode()).after(text[3:].encode()) == place
