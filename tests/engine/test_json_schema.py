"""JSON schemas as callers pass them: wrappings are taken off, and no keyword is passed over."""

import json

import pytest

from mlx_smolvlm.engine.json_schema import schema_text

COLOUR = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}


@pytest.mark.parametrize(
    "wrapped",
    [
        COLOUR,
        {"schema": COLOUR},
        {"name": "colour", "strict": True, "schema": COLOUR},
        {"name": "colour", "description": "of the shape", "schema": COLOUR},
        {"type": "json_schema", "json_schema": {"name": "colour", "strict": True, "schema": COLOUR}},
        {"type": "json_schema", "name": "colour", "strict": True, "schema": COLOUR},
    ],
)
def test_wrapped_schemas_are_unwrapped(wrapped):
    """`{"name", "strict", "schema"}` once allowed any JSON: unknown keywords say nothing."""
    assert json.loads(schema_text(wrapped)) == json.loads(schema_text(json.dumps(wrapped))) == COLOUR


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"typ": "string"}, "the JSON schema has the unknown keyword 'typ'; did you mean 'type'?"),
        ({"properties": {"a": {"minimun": 1}}}, "the JSON schema, properties, a has the unknown keyword 'minimun'"),
        ({"items": {"anyOf": [{}, {"x": 1}]}}, "the JSON schema, items, anyOf[1] has the unknown keyword 'x'"),
        ({"$defs": {"a": {"requird": []}}}, "$defs, a has the unknown keyword 'requird'; did you mean 'required'?"),
        ({"type": "string", "nullable": True}, 'write "type": [..., "null"]'),
        ({"x-guidance": {}}, "the layout of the JSON is fixed"),
        ({"name": "colour", "schema": COLOUR, "strct": True}, "has the unknown key 'strct'; did you mean 'strict'?"),
        (
            {"type": "json_schema", "json_schema": COLOUR, "x": 1},
            "the wrapping of the JSON schema has the unknown key 'x'",
        ),
        ({"type": "object", "title": {"type": "string"}}, "has title {'type': 'string'}; a property of that name"),
        ({"contentEncoding": "base64"}, "unknown keyword 'contentEncoding'"),
        ('{"type": "string", "type": "number"}', "has the key 'type' twice"),
        ({"type": "string", "x" * 10**5: 1}, "unknown keyword 'xxx"),
        ({"enum": {1, 2}}, "cannot be written as JSON"),
        (["x" * 10**5], "expected an object"),
    ],
)
def test_what_a_schema_cannot_use_is_refused_by_name(schema, problem):
    with pytest.raises(ValueError) as caught:
        schema_text(schema)
    assert problem in str(caught.value)
    assert len(str(caught.value)) < 500


def test_names_of_properties_are_free():
    schema = {
        "type": "object",
        "properties": {"typ": {"default": {"typ": 1}}},
        "$defs": {"x-guidance": {"const": {"y": 1}}},
    }
    assert json.loads(schema_text(schema)) == schema
