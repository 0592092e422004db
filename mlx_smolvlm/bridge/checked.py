"""JSON objects -> frozen dataclasses, checked by their annotations: no field is unknown, missing or of another type."""

from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ..options import did_you_mean, quoted

T = TypeVar("T")
_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "an object"}


def read_object(kind: type[T], value: Any, where: str) -> T:
    """A dataclass from a JSON object.

    Args:
        kind: its fields are text, numbers, bools, objects, dataclasses, tuples of these, or one of these or None.
        value: what `json.loads` returned.
        where: what the object is called in messages.

    Raises:
        ValueError: an unknown field, a missing one, or one of another type; or what the dataclass refuses.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {quoted(value)}, expected an object")
    hints: dict[str, Any] = _hints(kind)  # type: ignore[arg-type]
    for name in value:
        if name not in hints:
            advice = did_you_mean(name, list(hints)) or f"expected {', '.join(hints) or 'none'}"
            raise ValueError(f"{where} has an unknown field {quoted(name)}; {advice}")
    for field in fields(kind):  # type: ignore[arg-type]
        if field.default is MISSING and field.default_factory is MISSING and field.name not in value:
            raise ValueError(f"{where} has no {field.name}, expected {_expected(hints[field.name])}")
    return kind(**{name: _read(hints[name], item, f"{where}: {name}") for name, item in value.items()})


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _read(hint: Any, value: Any, where: str) -> Any:
    options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    for option in options:
        if option is NoneType:
            if value is None:
                return None
        elif option is Any:
            return value
        elif is_dataclass(option):
            return read_object(option, value, where)  # type: ignore[arg-type]
        elif get_origin(option) is tuple:
            if isinstance(value, list):
                return tuple(_read(get_args(option)[0], item, f"{where} {n}") for n, item in enumerate(value))
        elif get_origin(option) is dict:
            if isinstance(value, dict):
                return value
        elif option is float:
            if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value) if abs(value) < 2**63 else _refuse(hint, value, where)
        elif type(value) is option:
            return value
    return _refuse(hint, value, where)


def _refuse(hint: Any, value: Any, where: str) -> Any:
    raise ValueError(f"{where} is {quoted(value)}, expected {_expected(hint)}")


def _expected(hint: Any) -> str:
    if isinstance(hint, UnionType):
        return " or ".join(_expected(option) for option in get_args(hint))
    if get_origin(hint) is tuple:
        return "a list"
    return "null" if hint is NoneType else _NAMES.get(get_origin(hint) or hint, "an object")
