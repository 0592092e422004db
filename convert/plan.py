"""Which layers are quantized, and how: options -> one format per layer, with a reason where there is none."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from .quantize import FORMATS, LayerFormat

Plan = dict[str, LayerFormat | None]
"""Layer path (`language_model.layers.0.mlp.up_proj`) -> its format, or None for full precision."""

# name -> bits of most layers, bits of the sensitive ones; mlx-lm's names
RECIPES = {f"mixed_{low}_{high}": (low, high) for low, high in ((2, 6), (3, 4), (3, 5), (3, 6), (3, 8), (4, 6), (4, 8))}

PARTS = ("embeddings", "decoder", "connector", "vision", "linear")  # the last one makes the vectors of a retriever
FULL_PRECISION = ("connector", "vision", "linear")  # unless asked for: they are small, and images suffer first
_EMBEDDINGS = ("language_model.embed_tokens", "language_model.lm_head")
_POSITIONS = "vision_model.embeddings.position_embedding"
_DECODER_LAYERS = "language_model.layers."
_SKIPPED = "skipped by"
_VECTORS = "it makes the vectors, and is small"


def part_of(path: str) -> str:
    """The part of the model that a layer belongs to, one of PARTS; the head counts as embeddings."""
    if path.startswith(_EMBEDDINGS):
        return "embeddings"
    parts = {"language_model": "decoder", "connector": "connector", "linear": "linear"}
    return parts.get(path.split(".")[0], "vision")


@dataclass(frozen=True)
class QuantizationOptions:
    """The options of a quantization; `plan_quantization` makes a plan of them.

    `bits`, `group_size` and `mode` are for the decoder with its embeddings and head. A `recipe` of RECIPES decides the
    bits layer by layer instead. `parts` names other formats for "embeddings", "connector" or "vision", None for full
    precision. `skip` are glob patterns of layer paths that keep full precision.

    Raises:
        ValueError: a format without kernels, an unknown recipe or part.
    """

    bits: int = 4
    group_size: int = 64
    mode: str = "affine"
    recipe: str | None = None
    parts: Mapping[str, LayerFormat | None] = field(default_factory=dict)
    skip: Sequence[str] = ()

    def __post_init__(self) -> None:
        LayerFormat(self.bits, self.group_size, self.mode)
        if self.recipe is not None and self.recipe not in RECIPES:
            raise ValueError(f"q-recipe is {self.recipe!r}, expected one of {', '.join(RECIPES)}")
        if self.recipe is not None and self.mode != "affine":
            raise ValueError(f"q-recipe {self.recipe} mixes bits of the affine mode; leave q-mode {self.mode} out")
        if unknown := set(self.parts) - {"embeddings", "connector", "vision"}:
            raise ValueError(f"no part is called {min(unknown)!r}; there are embeddings, connector and vision")

    def format_for(self, path: str, num_layers: int) -> LayerFormat | None:
        """What is asked for the layer `path` of a decoder of `num_layers`."""
        part = part_of(path)
        if part in self.parts:
            return self.parts[part]
        if part in FULL_PRECISION:
            return None
        if self.recipe is None:
            return LayerFormat(self.bits, self.group_size, self.mode)
        low, high = RECIPES[self.recipe]
        is_sensitive = part == "embeddings" or _is_sensitive(path, num_layers)
        return LayerFormat(high if is_sensitive else low, self.group_size)


def plan_quantization(layers: Mapping[str, Sequence[int]], options: QuantizationOptions) -> tuple[Plan, dict[str, str]]:
    """Decide about every layer.

    Args:
        layers: path -> shape of its weight, (out, in), of every layer that could be quantized (see
            `Source.layers`).
        options: what is asked for.

    Returns:
        The plan, in the order of `layers`, and for each layer without a format the reason.

    Raises:
        ValueError: a pattern of `skip` that no layer matches.
    """
    for pattern in options.skip:
        if not any(fnmatchcase(path, pattern) for path in layers):
            raise ValueError(f"--skip {pattern!r} matches no layer; paths are such as {next(iter(layers), 'none')}")
    num_layers = 1 + max((_layer_index(path) for path in layers if path.startswith(_DECODER_LAYERS)), default=-1)
    plan: Plan = {}
    reasons = {}
    for path, shape in layers.items():
        wanted = options.format_for(path, num_layers)
        skipped_by = next((pattern for pattern in options.skip if fnmatchcase(path, pattern)), None)
        if wanted is None:
            reason = _VECTORS if part_of(path) == "linear" else "its part was not asked for"
        elif skipped_by is not None:
            reason = f"{_SKIPPED} {skipped_by}"
        elif path == _POSITIONS:
            reason = "positions are added to every patch, and small"
        else:
            reason = wanted.obstacle(shape) or ""
        if reason:
            reasons[path] = reason
        plan[path] = None if reason else wanted
    return plan, reasons


def refuse_unquantized(
    plan: Plan, reasons: Mapping[str, str], layers: Mapping[str, Sequence[int]], options: QuantizationOptions
) -> None:
    """Refuse options by which nothing would be quantized, or nothing of a part that is asked for. A part that is
    skipped on purpose may stay, if there is another.

    Args:
        plan, reasons: of `plan_quantization`.
        layers, options: what it was given.

    Raises:
        ValueError: with the parts, the reasons, and a group size that would fit.
    """
    embeddings = options.parts.get("embeddings", True)
    asked = [("decoder", "embeddings") if embeddings is True else ("decoder",)]
    asked += [(part,) for part, layer_format in options.parts.items() if layer_format]
    for parts in asked:
        paths = [path for path in plan if part_of(path) in parts]
        is_skipped = all(reasons.get(path, "").startswith(_SKIPPED) for path in paths)
        if any(plan[path] for path in paths) or (is_skipped and any(plan.values())):
            continue
        counts = Counter(reasons[path] for path in paths)
        why = "; ".join(f"{count} layer{'s' * (count != 1)}: {reason}" for reason, count in counts.most_common(3))
        widths = {layers[path][-1] for path in paths if not reasons[path].startswith(_SKIPPED)}
        fitting = [size for size in FORMATS["affine"][1] if widths and not any(width % size for width in widths)]
        advice = f"--q-group-size {max(fitting)} would fit" if fitting else "choose other options"
        raise ValueError(
            f"nothing of {' and '.join(parts)} would be quantized ({why or 'there are no such layers'}); {advice}, or "
            "--allow-unquantized goes on all the same"
        )


def check_plan(plan: Plan, layers: Mapping[str, Sequence[int]]) -> None:
    """Refuse a ready plan that names layers which are not there, or formats that do not fit.

    Raises:
        ValueError: with the layer's path.
    """
    for path, layer_format in plan.items():
        if path not in layers:
            raise ValueError(f"the plan names {path}, which is no layer of this checkpoint")
        if layer_format and (path == _POSITIONS or layer_format.obstacle(layers[path])):
            obstacle = layer_format.obstacle(layers[path]) or "it holds positions"
            raise ValueError(f"the plan quantizes {path}, which cannot be: {obstacle}")


def config_entry(plan: Plan) -> dict[str, Any]:
    """`quantization` of `config.json`: the most frequent format, the layers that differ, and `false` for layers that
    are not quantized in a network (decoder, encoder, connector) that otherwise is. {} if nothing is quantized."""
    formats = Counter(layer_format for layer_format in plan.values() if layer_format)
    if not formats:
        return {}
    usual = formats.most_common(1)[0][0]
    networks = {path.split(".")[0] for path, layer_format in plan.items() if layer_format}
    others = {
        path: layer_format.entry() if layer_format else False
        for path, layer_format in sorted(plan.items())
        if layer_format != usual and (layer_format or path.split(".")[0] in networks)
    }
    return usual.entry() | others


def plan_from_entry(entry: Mapping[str, Any] | None, quantized: Sequence[str]) -> Plan:
    """The formats of a folder's quantized layers, from `quantization` of its `config.json`."""
    entry = entry or {}

    def layer_format(path: str) -> LayerFormat:
        own = entry.get(path)
        choice = own if isinstance(own, dict) else entry
        return LayerFormat(choice["bits"], choice["group_size"], choice.get("mode", "affine"))

    return {path: layer_format(path) for path in quantized}


def _layer_index(path: str) -> int:
    return int(path.removeprefix(_DECODER_LAYERS).split(".")[0])


def _is_sensitive(path: str, num_layers: int) -> bool:
    """Whether mixed recipes spend more bits: values and MLP outputs in the first and last eighth, and every third
    layer between, as llama.cpp's Q4_K_M chooses (mlx-lm has the same rule)."""
    if not path.startswith(_DECODER_LAYERS) or not path.endswith(("v_proj", "down_proj")):
        return False
    index, eighth = _layer_index(path), num_layers // 8
    return index < eighth or index >= 7 * num_layers // 8 or (index - eighth) % 3 == 2
