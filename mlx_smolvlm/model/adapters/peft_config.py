"""`adapter_config.json` as PEFT writes it: which variants are understood, and the factor of each update.

Fields are checked by an allow-list. A field that is not known to leave the weights' meaning alone is refused by name,
unless it is off: null, false or empty, which is how PEFT writes options of later versions that are not in use. Fields
that select layers are compared with the file's tensors by `peft_targets.py`.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...options import quoted
from ..json_fields import Fields
from .path_patterns import PathPattern

MAX_PATTERNS = 10_000
MAX_FACTOR = 1e9

Scaling = Callable[[str, int], float]
"""A module's path and the rank found in the file -> the factor of its product."""

_READ = frozenset(
    {"peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "bias"}
    | {"init_lora_weights", "base_model_name_or_path", "revision", "ensure_weight_tying"}
)
_NEUTRAL = frozenset(  # whatever they say: they guided training, or choose layers, see `peft_targets.py`
    {"auto_mapping", "task_type", "peft_version", "inference_mode", "runtime_config", "lora_dropout", "fan_in_fan_out"}
    | {"target_modules", "exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern"}
    | {"megatron_core", "qalora_group_size", "eva_config", "loftq_config", "corda_config", "lora_ga_config"}
)
_VARIANTS = frozenset({"arrow_config", "kasa_config", "monteclora_config", "use_bdlora", "velora_config"})
"""PEFT takes {} in one of these fields for the variant with its defaults."""
_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")  # others change the base weights as well


def check_peft_config(raw: dict[str, Any], where: Path) -> None:
    """Refuse a variant that is not understood.

    Raises:
        ValueError: with the field's name and value.
    """
    if raw.get("peft_type") != "LORA":
        raise ValueError(f"{where}: peft_type is {quoted(raw.get('peft_type'))}, only 'LORA' can be used")
    expected = {"bias": raw.get("bias", "none") == "none", "init_lora_weights": _is_plain_start(raw)}
    unknown = {name: _is_off(name, value) for name, value in raw.items() if name not in _READ | _NEUTRAL}
    for name, is_neutral in (expected | unknown).items():
        if not is_neutral:
            value = "" if raw[name] is True else f" {quoted(raw[name], 60)}"
            raise ValueError(
                f"{where}: {quoted(name)[1:-1]}{value} is not supported; merge the adapter with PEFT instead"
            )
    for name in ("use_dora", "use_rslora", "ensure_weight_tying"):
        if type(raw.get(name)) not in (bool, type(None)):
            raise ValueError(f"{where}: {name} is {quoted(raw[name])}, expected true or false")


def _is_plain_start(raw: dict[str, Any]) -> bool:
    start = raw.get("init_lora_weights")
    return any(type(start) is type(plain) and start == plain for plain in _PLAIN_STARTS)


def _is_off(name: str, value: Any) -> bool:
    return value is None or value is False or (value in ({}, [], "") and name not in _VARIANTS)


def peft_scaling(fields: Fields) -> Scaling:
    """How the configuration scales each module's product.

    Raises:
        ValueError: a field that is missing or out of range, or too many patterns.
    """
    rank, alpha = fields.positive("r"), fields.get("lora_alpha", float)
    ranks, alphas = fields.section("rank_pattern", {}), fields.section("alpha_pattern", {})
    use_rslora = fields.get("use_rslora", bool, False)
    if len(ranks) + len(alphas) > MAX_PATTERNS:
        raise ValueError(f"{fields.where}: {len(ranks) + len(alphas)} patterns, the limit is {MAX_PATTERNS}")
    compiled: dict[str, PathPattern] = {}

    def of_pattern(patterns: dict[str, Any], module: str, default: Any) -> Any:
        """The first pattern that matches the end of a path, as in peft, `utils/other.py` (`get_pattern_key`)."""
        for pattern, value in patterns.items():
            if pattern == module or module.endswith(f".{pattern}"):  # as PEFT itself writes them
                return value
            if pattern.isidentifier():  # plain text that is no end of this path
                continue
            try:
                if pattern not in compiled:
                    compiled[pattern] = PathPattern(pattern)
                if compiled[pattern].matches_end(module):
                    return value
            except ValueError as error:
                raise ValueError(
                    f"{fields.where}: {quoted(pattern)} is no regular expression that can be used: {error}"
                ) from None
        return default

    def scaling(module: str, found_rank: int) -> float:
        expected = of_pattern(ranks, module, rank)
        if expected != found_rank:
            raise ValueError(
                f"{fields.where}: rank {quoted(expected)} is stated for {module}, but its matrices have {found_rank}"
            )
        factor = of_pattern(alphas, module, alpha)
        if not is_factor(factor):
            raise ValueError(
                f"{fields.where}: lora_alpha or alpha_pattern is {quoted(factor)} for {module}, "
                f"expected a number below {MAX_FACTOR:g}"
            )
        return float(factor) / (math.sqrt(found_rank) if use_rslora else found_rank)

    return scaling


def is_factor(value: Any) -> bool:
    """Whether a value is a number of reasonable size; so written that NaN is none."""
    return type(value) in (int, float) and abs(value) < MAX_FACTOR
