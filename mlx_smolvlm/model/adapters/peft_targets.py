"""Which layers a configuration of PEFT's adapts, compared with those that its file has matrices of.

PEFT builds the layers that the configuration selects and leaves out, without a word, whatever else the file holds. The
selection is that of peft, `tuners/tuners_utils.py` (`check_target_module_exists`). A regular expression that
`path_patterns.py` does not understand, and a configuration without `target_modules`, are not compared.
"""

import re
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...options import quoted
from .path_patterns import PathPattern

_ALL_LINEAR = "all-linear"
_NOT_LINEAR = ("lm_head", "embed_tokens", "patch_embedding", "position_embedding")  # of what can have matrices


def check_targets(raw: dict[str, Any], modules: Iterable[str], whole: Iterable[str], where: Path) -> None:
    """Refuse a configuration that leaves out a layer of its file.

    Args:
        raw: the configuration.
        modules: paths of the layers that the file has matrices of.
        whole: paths of those of which it holds the weights themselves, under their own names.
        where: the configuration's file.

    Raises:
        ValueError: with the field that leaves it out; or a field of another type than PEFT's.
    """
    targets, layers = raw.get("target_modules"), raw.get("layers_to_transform")
    for field in ("target_modules", "exclude_modules", "layers_pattern"):
        if not (raw.get(field) is None or isinstance(raw[field], str) or _is_list_of(raw[field], str)):
            raise ValueError(f"{where}: {field} is {quoted(raw[field])}, expected names, or a regular expression")
    if not (raw.get("modules_to_save") is None or _is_list_of(raw["modules_to_save"], str)):
        raise ValueError(f"{where}: modules_to_save is {quoted(raw['modules_to_save'])}, expected names")
    if not (layers is None or type(layers) is int or _is_list_of(layers, int)):
        raise ValueError(f"{where}: layers_to_transform is {quoted(layers)}, expected numbers of layers")
    if targets is None:
        return
    if isinstance(targets, str) and not (layers is None and raw.get("layers_pattern") is None):
        raise ValueError(f"{where}: layers_to_transform and layers_pattern need target_modules that is a list of names")
    if raw.get("layers_pattern") and layers is None:
        raise ValueError(f"{where}: layers_pattern has no effect without layers_to_transform")
    try:
        chosen = _Chosen(raw)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    for module in sorted(modules):
        if by := chosen.left_out_by(module):
            raise ValueError(
                f"{where}: {by} {quoted(raw[by], 60)} leaves out {module}, but the file has matrices for it; "
                "which of the two is meant cannot be told"
            )
    for module in sorted(whole):
        if chosen.adapts(module):
            raise ValueError(
                f"{where}: target_modules {quoted(targets, 60)} adapts {module}, but the file holds its weights as a "
                "whole; which of the two is meant cannot be told (modules_to_save names what is saved as a whole)"
            )


class _Chosen:
    """What a configuration selects; its expressions are read once."""

    def __init__(self, raw: dict[str, Any]):
        self._raw = raw
        self._patterns = {}
        for field in ("target_modules", "exclude_modules"):
            try:
                self._patterns[field] = _pattern(raw.get(field))
            except re.error as error:
                raise ValueError(f"{field} {quoted(raw[field])} is no regular expression: {error}") from None

    def left_out_by(self, module: str) -> str | None:
        """The field by which a layer is left out; None if it is adapted, or if that cannot be told."""
        raw = self._raw
        if raw.get("exclude_modules") and self._names("exclude_modules", module):
            return "exclude_modules"
        saved: Any = raw.get("modules_to_save")
        if _is_list_of(saved, str) and any(name and f".{name}." in f".{module}." for name in saved):
            return "modules_to_save"
        targets = raw["target_modules"]
        if self._names("target_modules", module) is False:
            return "target_modules"
        layers: Any = raw.get("layers_to_transform")
        if layers in (None, []) or module in targets:
            return None
        number = _layer_number(module, raw.get("layers_pattern"))
        is_chosen = number is not None and (number in layers if isinstance(layers, list) else number == layers)
        return None if is_chosen else "layers_to_transform"

    def adapts(self, module: str) -> bool:
        """Whether a layer certainly gets matrices, so that its own weight has another name."""
        return self._names("target_modules", module) is True and self.left_out_by(module) is None

    def _names(self, field: str, module: str) -> bool | None:
        """Whether a field names a layer; None if that cannot be told."""
        value = self._raw[field]
        if not isinstance(value, str):
            return any(module == name or module.endswith(f".{name}") for name in value)
        if field == "target_modules" and value.lower() == _ALL_LINEAR:
            return module.rpartition(".")[2] not in _NOT_LINEAR
        pattern = self._patterns[field]
        try:
            return None if pattern is None else pattern.matches(module)
        except ValueError:
            self._patterns[field] = None  # the others would take as long
            return None


def _pattern(value: Any) -> PathPattern | None:
    if not isinstance(value, str):
        return None
    try:
        return PathPattern(value)
    except ValueError:
        with suppress(RecursionError, OverflowError), warnings.catch_warnings(action="ignore"):
            re.compile(value)  # which matches nothing yet, so it takes no time
        return None


def _layer_number(module: str, patterns: Any) -> int | None:
    """The number of the first layer in a path: behind one of the names, or any name."""
    names: Sequence[str] = [patterns] if isinstance(patterns, str) else patterns or []
    parts = module.split(".")
    wanted: list[str | None] = [name for name in names if name]
    for name in wanted or [None]:
        for at in range(1 if name is None else 0, len(parts) - 2):
            if name in (None, parts[at]) and parts[at + 1].isdecimal():
                return int(parts[at + 1][:9])
    return None


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)
