"""Schemas and expressions whose preparation would take minutes are refused by their size."""

import json
import time
from typing import Any

import pytest

from mlx_smolvlm import GenerationOptions
from mlx_smolvlm.engine.structured import MAX_REGEX_CHARS, MAX_SCHEMA_CHARS, MAX_SCHEMA_OBJECTS, read_grammar

OBJECTS = f"more than {MAX_SCHEMA_OBJECTS} objects within"
CHARACTERS = rf"has \d+ characters, the limit is {MAX_SCHEMA_CHARS}"
within_itself: list[Any] = []
within_itself.append(within_itself)


def properties(number: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(number)}}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"json_schema": properties(5000)}, OBJECTS),
        ({"json_schema": json.dumps(properties(5000))}, OBJECTS),
        ({"json_schema": {"anyOf": [properties(1)] * 1000}}, OBJECTS),
        ({"json_schema": {"enum": within_itself}}, OBJECTS),
        ({"json_schema": " " * 100_000_000}, CHARACTERS),
        ({"json_schema": {"enum": ["x" * 100_000_000]}}, CHARACTERS),
        ({"json_schema": {"pattern": "a?" * 50_000}}, f"regex has 100000 characters, the limit is {MAX_REGEX_CHARS}"),
        ({"regex": "a?" * 50_000}, f"regex has 100000 characters, the limit is {MAX_REGEX_CHARS}"),
    ],
    ids=["properties", "as text", "alternatives", "within itself", "text", "long", "pattern", "regex"],
)
def test_a_form_that_is_too_large_is_refused_at_once(options: dict[str, Any], problem: str) -> None:
    start = time.monotonic()
    with pytest.raises(ValueError, match=problem) as caught:
        read_grammar(GenerationOptions(**options))
    assert time.monotonic() - start < 5
    assert len(str(caught.value)) < 300
