"""Damage of all kinds, the same for the same random numbers."""

import json
from random import Random
from typing import Any

MAX_JSON_CHARS = 200_000  # beyond it, an example is damaged no further
ODD_NUMBERS = [0, -1, 1, 7, 255, 2**31 - 1, 2**31, 2**32, 2**63, 10**400, -(10**30), 0.5, 1e308, -1e308, 5e-324]
ODD_VALUES: list[Any] = [
    *ODD_NUMBERS, None, True, False, "", "x", "<image>", "\udcff", "é" * 300, "../../etc/passwd", "http://[::1", "\0",
    [], {}, [[]], [None], {"": {}}, float("nan"), float("inf"), "9" * 5000, "a" * 100_000,
]  # fmt: skip


def mutated_bytes(content: bytes, choices: Random) -> bytes:
    """Flip, overwrite, insert, repeat, drop and cut."""
    damaged = bytearray(content)
    for _ in range(choices.choice([1, 1, 2, 4, 16])):
        at = choices.randrange(len(damaged) + 1)
        if choices.random() < 0.6:  # where headers are
            at = min(at, choices.randrange(1, 600))
        size = choices.choice([1, 2, 4, 8, 64])
        way = choices.randrange(6)
        if way == 0 and at < len(damaged):
            damaged[at] ^= 1 << choices.randrange(8)
        elif way == 1:
            damaged[at : at + size] = choices.randbytes(size)
        elif way == 2:
            damaged[at : at + size] = choices.choice([b"\0", b"\xff", b"\x7f"]) * size
        elif way == 3:
            damaged[at:at] = damaged[at : at + size] * choices.choice([1, 2, 100])
        elif way == 4:
            del damaged[at : at + size]
        elif choices.random() < 0.3:
            del damaged[at:]
    return bytes(damaged)


def mutated_json(value: Any, choices: Random) -> Any:
    """Replace, remove, double or exchange values somewhere within."""
    for _ in range(choices.choice([1, 1, 1, 2, 5])):
        text = json.dumps(value)  # doubled values are shared so far
        if len(text) > MAX_JSON_CHARS:
            break
        value = json.loads(text)
        places = list(_places(value))
        if not places:
            return choices.choice(ODD_VALUES)
        inner, key = choices.choice(places)
        way = choices.randrange(5)
        if way == 0:
            del inner[key]
        elif way == 1 and isinstance(inner, list):
            inner[key:key] = inner * choices.choice([1, 50])
        elif way == 2:
            other, other_key = choices.choice(places)
            if isinstance(inner, dict) or key < len(inner):
                inner[key] = json.loads(json.dumps(other[other_key]))
        else:
            inner[key] = choices.choice(ODD_VALUES)
    return value


def json_bytes(value: Any) -> bytes:
    """As a file; numbers of thousands of digits included."""
    return json.dumps(value).encode()


def _places(value: Any, depth: int = 0) -> Any:
    if depth > 20:
        return
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items)[:200]:
        yield value, key
        yield from _places(inner, depth + 1)
