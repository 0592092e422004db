"""Fields of a request's body, each read with its type and range; null is as absent."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ...options import is_between, is_whole, quoted
from ..errors import ApiError, bad_request
from .unknown_fields import UnknownFields


class BodyFields:
    """A body, and which of its fields have been read."""

    def __init__(self, body: Mapping[str, Any]):
        self._body = {name: value for name, value in body.items() if value is not None}
        self._read: set[str] = set()

    def get(self, name: str) -> Any:
        """A field of any type; None if it is absent."""
        self._read.add(name)
        return self._body.get(name)

    def whole(self, name: str, least: int, most: int | None = None) -> int | None:
        """A whole number; `3.0` is one."""
        value = self.get(name)
        if isinstance(value, float) and math.isfinite(value) and value == int(value):
            value = int(value)
        if value is not None and not is_whole(value, least, most):
            limit = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise self.wrong(name, f"a whole number {limit}")
        return None if value is None else int(value)

    def number(self, name: str, least: float, most: float = math.inf) -> float | None:
        """A number."""
        value = self.get(name)
        if value is not None and (isinstance(value, str) or not is_between(value, least, most)):
            limit = f"of at least {least:g}" if math.isinf(most) else f"from {least:g} to {most:g}"
            raise self.wrong(name, f"a number {limit}")
        return value

    def flag(self, name: str) -> bool | None:
        """True or false."""
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def text(self, name: str) -> str | None:
        """Text."""
        value = self.get(name)
        if value is not None and not isinstance(value, str):
            raise self.wrong(name, "text")
        return value

    def object(self, name: str) -> dict[str, Any]:
        """An object, its null fields left out; empty if it is absent."""
        value = self.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.wrong(name, "an object")
        return {key: inner for key, inner in value.items() if inner is not None}

    def wrong(self, name: str, expected: str) -> ApiError:
        """The error for a field of another type or range."""
        return bad_request(f"{name} is {quoted(self._body.get(name))}, expected {expected}", name)

    def refuse(
        self, refused: Mapping[str, Sequence[Any]], advice: Mapping[str, str] | None = None, prefix: str = ""
    ) -> None:
        """Refuse fields that would change the answer.

        Args:
            refused: their names, and the values of each that change nothing.
            advice: what to do instead, by name; else they are to be left out.
            prefix: of the names in errors.

        Raises:
            ApiError: 400 `unsupported_parameter`.
        """
        for name, harmless in refused.items():
            value = self.get(name)
            if value is None or any(
                isinstance(value, bool) == isinstance(one, bool) and value == one for one in harmless
            ):
                continue
            message = f"{prefix}{name} is not supported: {(advice or {}).get(name, 'leave it out')}"
            raise bad_request(message, f"{prefix}{name}", "unsupported_parameter")

    def unread(self, ignored: Collection[str]) -> list[str]:
        """Names of fields that were not read, but for those that are known to change nothing."""
        return [name for name in self._body if name not in self._read and name not in ignored]

    def check_unknown(self, unknown: UnknownFields, ignored: Collection[str], where: str = "") -> None:
        """Log or refuse fields that were not read; `where` is the place of this object in the body."""
        unknown.check(self._body, where, self._read, ignored)
