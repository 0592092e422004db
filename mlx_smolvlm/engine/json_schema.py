"""A JSON schema as callers pass it -> its text, unwrapped, every keyword in it known."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..model.json_fields import doubled_key
from ..options import did_you_mean, quoted

# llguidance passes over keywords that it does not know, as the standard says. A misspelt one would change nothing, so
# only these are taken. Those that it knows and cannot enforce (`not`, `if`, ...), it refuses itself.
_SCHEMA = ("additionalProperties", "additionalItems", "contains", "not", "if", "then", "else", "propertyNames")
_SCHEMAS = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_VALUES = (
    *("type", "enum", "const", "format", "pattern", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum"),
    *("exclusiveMaximum", "multipleOf", "minItems", "maxItems", "uniqueItems", "required", "minProperties"),
    *("maxProperties", "dependentRequired", "unevaluatedItems", "unevaluatedProperties", "$ref", "$dynamicRef"),
)
_ANNOTATIONS: dict[str, type | tuple[type, ...]] = {  # they say something to people; with the type of their values
    **dict.fromkeys(("title", "description", "$comment", "$schema", "$id", "id", "$anchor"), str),
    **dict.fromkeys(("deprecated", "readOnly", "writeOnly"), bool),
    "examples": list,
    "default": object,
}
_KEYWORDS = (*_SCHEMA, *_SCHEMAS, *_NAMED_SCHEMAS, *_VALUES, *_ANNOTATIONS, "items")
_REFUSED = {
    "nullable": 'write "type": [..., "null"]',
    "x-guidance": "the layout of the JSON is fixed",
    "schema": "a wrapped schema is an object",
    "json_schema": 'a wrapped schema is an object, beside "type": "json_schema"',
}
_WRAPPING = ("name", "description", "strict", "schema")  # OpenAI's


def schema_text(json_schema: Mapping[str, Any] | str) -> str:
    """A schema as JSON text.

    The wrappings of OpenAI's interface are taken off: `{"name": ..., "strict": ..., "schema": {...}}`, and that within
    `{"type": "json_schema", "json_schema": {...}}`. Answers follow the schema strictly either way.

    Raises:
        ValueError: not a JSON object, a keyword that is not known, or one key twice.
    """
    schema: Any = json_schema
    try:
        if isinstance(schema, str):
            schema = json.loads(schema, object_pairs_hook=_without_doubles)
        if not isinstance(schema, Mapping):
            raise ValueError(f"the JSON schema is {quoted(schema)}, expected an object")
        schema = _unwrapped(schema)
        text = json.dumps(dict(schema), ensure_ascii=False)
        for keyword, value, path in _keywords(json.loads(text), "the JSON schema"):
            _check(keyword, value, path)
    except json.JSONDecodeError as error:
        raise ValueError(f"the JSON schema is not JSON: {error}") from None
    except RecursionError:
        raise ValueError("the JSON schema is not JSON that can be used: it is nested too deeply") from None
    except TypeError as error:
        raise ValueError(f"the JSON schema cannot be written as JSON: {quoted(str(error))[1:-1]}") from None
    return text


def _unwrapped(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if schema.get("type") == "json_schema":
        inner = schema.get("json_schema")
        if inner is None and isinstance(schema.get("schema"), Mapping):  # flat, as in the Responses interface
            return _unwrapped({key: value for key, value in schema.items() if key != "type"})
        if isinstance(inner, Mapping):
            _check_wrapping(schema, ("type", "json_schema"))
            return _unwrapped(inner)
    inner = schema.get("schema")
    if isinstance(inner, Mapping):
        _check_wrapping(schema, _WRAPPING)
        return inner
    return schema


def _check_wrapping(wrapping: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in wrapping:
        if key not in known:
            advice = did_you_mean(key, known) or f"beside the schema, it takes {', '.join(known)}"
            raise ValueError(f"the wrapping of the JSON schema has the unknown key {quoted(key)}; {advice}")


def _keywords(schema: Any, path: str) -> Iterator[tuple[str, Any, str]]:
    """(keyword, value, where) of a schema and of all within it."""
    if isinstance(schema, list):  # `items` of older drafts
        for number, item in enumerate(schema):
            yield from _keywords(item, f"{path}[{number}]")
    if not isinstance(schema, dict):  # true and false are schemas, and llguidance refuses the others
        return
    for keyword, value in schema.items():
        yield keyword, value, path
        within = f"{path}, {keyword}"
        if keyword in _SCHEMA or keyword in _SCHEMAS or keyword == "items":
            yield from _keywords(value, within)
        elif keyword in _NAMED_SCHEMAS and isinstance(value, dict):
            for name, inner in value.items():
                yield from _keywords(inner, f"{within}, {name[:40]}")


def _check(keyword: str, value: Any, path: str) -> None:
    path = path if len(path) <= 200 else f"{path[:100]}...{path[-100:]}"
    if keyword not in _KEYWORDS:
        advice = (
            _REFUSED.get(keyword) or did_you_mean(keyword, _KEYWORDS) or "leave it out, or put it into 'properties'"
        )
        raise ValueError(f"{path} has the unknown keyword {quoted(keyword)}; {advice}")
    kind = _ANNOTATIONS.get(keyword)
    if kind is not None and not isinstance(value, kind):
        raise ValueError(f"{path} has {keyword} {quoted(value)}; a property of that name goes into 'properties'")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON text, in which every key stands once: of two, one would be left out."""
    if (twice := doubled_key(pairs)) is not None:
        raise ValueError(f"the JSON schema has the key {quoted(twice)} twice; leave one out")
    return dict(pairs)
