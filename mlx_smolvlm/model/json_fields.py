"""A checkpoint's JSON files, read field by field, with errors that name file and field."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..options import quoted

MAX_JSON_BYTES = 16 * 1024**2  # of one file but tokenizer.json; the largest of released checkpoints have some 5 MB


class Fields:
    """One JSON object of a checkpoint file, read field by field with errors that name both."""

    def __init__(self, values: Any, where: str, defaults: dict[str, Any] | None = None):
        if not isinstance(values, dict):
            raise ValueError(f"{where} is {quoted(values)}, expected an object")
        self.values, self.where, self.defaults = values, where, defaults or {}

    def get(self, name: str, kind: type, default: Any = None) -> Any:
        """The field as `kind`; JSON null counts as missing."""
        value = self.values.get(name)
        if value is None:
            value = self.defaults.get(name, default)
        if value is None:
            raise ValueError(f"{self.where} has no '{name}' and no default is safe; complete the checkpoint's files")
        if kind is float and type(value) is int and abs(value) < 2**63:
            value = float(value)
        if kind is int and type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not kind:
            raise ValueError(f"{self.where}: '{name}' is {quoted(value)}, expected {kind.__name__}")
        return value

    def positive(self, name: str, kind: type = int, default: Any = None) -> Any:
        """A number above 0 that a 32-bit integer, or a float, can hold."""
        value = self.get(name, kind, default)
        if not 0 < value < (2**31 if kind is int else math.inf):  # so written that NaN does not pass
            raise ValueError(f"{self.where}: '{name}' is {quoted(value)}, expected a positive number")
        return value

    def side(self, name: str) -> int:
        """A length in pixels; transformers also writes it as [height, width]."""
        value = self.values.get(name)
        if isinstance(value, list):
            if len(value) != 2 or value[0] != value[1]:
                raise ValueError(f"{self.where}: '{name}' is {quoted(value)}, only square tiles are supported")
            return Fields({name: value[0]}, self.where).positive(name)
        return self.positive(name)

    def section(self, name: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
        """An object within this one."""
        return self.get(name, dict, default)

    def require(self, name: str, expected: Any, default: Any) -> None:
        """Refuse a variant that the networks do not implement."""
        value = self.values.get(name)
        if (default if value is None else value) != expected:
            raise ValueError(f"{self.where}: '{name}' is {quoted(value)}, only {expected!r} is supported")


def doubled_key(pairs: Sequence[tuple[str, Any]]) -> str | None:
    """A key that an object of JSON text has twice, given all its pairs: readers differ in which one they take."""
    if len(dict(pairs)) == len(pairs):
        return None
    return Counter(name for name, _ in pairs).most_common(1)[0][0]


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises FileNotFoundError, or ValueError if it is not a JSON object."""
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {path.parent}: not a model folder, or an incomplete one")
    check_file_size(path, MAX_JSON_BYTES)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a JSON {type(content).__name__}, expected an object")
    return content


def read_text(path: Path, max_bytes: int) -> str:
    """The text of a file. Raises ValueError if it is larger than `max_bytes`, or not UTF-8."""
    check_file_size(path, max_bytes)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from None


def check_file_size(path: Path, max_bytes: int) -> None:
    """Raise ValueError if a file is larger than `max_bytes`; sparse files count by what they claim to hold."""
    size = path.stat().st_size
    if size > max_bytes:
        raise ValueError(f"{path} has {size} bytes, the limit for this file is {max_bytes}; is it the right one?")
