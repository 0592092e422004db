"""What the schemas of `/openapi.json` are written with."""

from typing import Any

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
SEED: Schema = {"type": "integer", "minimum": -(2**63), "maximum": 2**64 - 1}
FLAG: Schema = {"type": "boolean"}


def ref(name: str) -> Schema:
    """A reference to one of the schemas."""
    return {"$ref": f"#/components/schemas/{name}"}


def array(items: Schema, **limits: Any) -> Schema:
    """A list."""
    return {"type": "array", "items": items, **limits}


def either(*schemas: Schema) -> Schema:
    """What fits one of several."""
    return {"anyOf": list(schemas)}


def whole(least: int, most: int | None = None) -> Schema:
    """A whole number."""
    return {"type": "integer", "minimum": least, **({} if most is None else {"maximum": most})}


def number(least: float, most: float | None = None, **more: Any) -> Schema:
    """A number."""
    return {"type": "number", "minimum": least, **({} if most is None else {"maximum": most}), **more}


def given(description: str, properties: dict[str, Schema], *required: str) -> Schema:
    """An object of a request: fields that are not required may be null."""
    return {
        "type": "object",
        "description": description,
        "properties": {
            name: schema if name in required or not schema else either(schema, {"type": "null"})
            for name, schema in properties.items()
        },
        "required": list(required),
    }


def made(properties: dict[str, Schema], *optional: str, description: str = "") -> Schema:
    """An object of a response: fields that are not optional are always there."""
    return {
        "type": "object",
        **({"description": description} if description else {}),
        "properties": properties,
        "required": [name for name in properties if name not in optional],
    }


def nothing(*values: Any) -> Schema:
    """The values of a field that this server does not support, which change nothing."""
    return {"description": "Not supported: only what changes nothing is accepted.", "enum": [*values, None]}
