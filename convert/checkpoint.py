"""One conversion, from a checkpoint to a folder."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..api.finding import AdapterSource, base_of, check_utf8, name_of, open_adapters
from ..api.loading import DTYPES
from ..command_line.progress import Progress
from ..files import write_json
from ..model.json_fields import read_json
from ..processor.processor import load_processor
from .card import write_card
from .configuration import converted_config
from .conversion_report import ConversionReport
from .merged_source import MergedSource
from .plan import (
    PARTS,
    Plan,
    QuantizationOptions,
    check_plan,
    config_entry,
    part_of,
    plan_quantization,
    refuse_unquantized,
)
from .quantize import Rounding
from .save import check_target, copy_companions, find_companions, left_out_note, whole_checkpoint
from .shards import TensorSpec, write_weights
from .source_checkpoint import Source, open_source
from .tensors import output_specs, output_tensors


def convert_checkpoint(
    path_or_hub_id: str | Path | None,
    mlx_path: str | Path,
    *,
    quantization: QuantizationOptions | None = None,
    plan: Plan | None = None,
    rounding: Rounding | None = None,
    dequantize: bool = False,
    adapter_path: AdapterSource | Sequence[AdapterSource] | None = None,
    dtype: str | None = None,
    revision: str | None = None,
    force: bool = False,
    allow_unquantized: bool = False,
    command: str | None = None,
    repo_id: str | None = None,
    progress: Progress | None = None,
) -> ConversionReport:
    """Convert a checkpoint to an MLX-community folder, readable here, by mlx-vlm and by mlx-swift-lm.

    Tensors are read, converted and written one at a time.

    Args:
        path_or_hub_id: a folder or a Hub id. Layers that are quantized already are dequantized where `quantization`,
            `plan` or `dequantize` ask for it, and copied otherwise. None for the base that the adapters name.
        mlx_path: the folder to make. It appears when it is whole.
        quantization: what to quantize; None for nothing.
        plan: instead of `quantization`, the format of each layer by its path; layers left out keep full precision.
        rounding: how weights are transformed and rounded; None rounds to nearest.
        dequantize: turn a quantized checkpoint into a plain one.
        adapter_path: adapters to be merged first, one or several, as `adapters` of `load`. A tokenizer, chat template
            or processor files beside one win over the checkpoint's.
        dtype: "bfloat16", "float16" or "float32" for what is not quantized; None keeps the types of the file.
        revision: branch, tag or commit of the checkpoint on the Hub.
        force: replace a checkpoint that has the name `mlx_path`, once the new one is whole.
        allow_unquantized: go on where `quantization` fits no layer of a part that is asked for.
        command: the command line, for the model card.
        repo_id: the Hub repository that the folder is meant for, for the model card.
        progress: reports how far it is; None for silence.

    Raises:
        FileNotFoundError: no such checkpoint or adapter, or files are missing from it.
        FileExistsError: `mlx_path` exists and is not empty.
        ValueError: damaged or contradictory files, options that contradict each other, or a quantization that fits no
            layer.
        ConnectionError: the Hub cannot be reached or refuses.
        OSError: the disk has no room, or cannot be written.
    """
    progress = progress or Progress(is_shown=False)
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}")
    if (quantization is not None) + (plan is not None) + dequantize > 1:
        raise ValueError("quantizing, a plan and dequantizing exclude each other; choose one")
    adapters = open_adapters(adapter_path) if adapter_path is not None else []
    origin = path_or_hub_id
    if origin is None:
        origin, revision = base_of([adapter for adapter, _ in adapters], revision, "--hf-path")
    if not str(mlx_path):
        raise ValueError("--mlx-path is empty; name the folder to make")
    target = Path(mlx_path).expanduser().absolute()
    check_utf8(target)
    source = open_source(origin, revision=revision)
    check_target(target, source.folder, force)
    companions = find_companions(source.folder, [adapter.folder for adapter, _ in adapters])
    raw_config = read_json(source.folder / "config.json")
    if adapters:
        source = MergedSource(source, adapters)
        load_processor(source.folder, source.config, [adapter.folder for adapter, _ in adapters])
    layers, num_weights = source.layers, source.num_weights
    keeps_codes = bool(source.formats) and quantization is None and plan is None and not dequantize
    if keeps_codes and adapters:
        raise ValueError(f"{origin} is quantized; to merge an adapter, quantize it again (-q) or dequantize it (-d)")
    is_requantized = bool(quantization is not None or plan is not None or dequantize)
    plan, reasons = _plan(source, quantization, plan, dequantize, allow_unquantized)
    notes = _requantization_notes(source.formats, plan) if is_requantized else []
    notes += filter(None, [left_out_note(source.folder)])
    entry = config_entry(plan)
    to_apply, shapes = plan, source.shapes
    if keeps_codes:
        source, to_apply, entry = source.as_stored(), {}, source.config.quantization or {}
    target_dtype = DTYPES[dtype] if dtype else None
    specs = output_specs(source, to_apply, target_dtype)
    size_bytes = sum(spec.size_bytes for spec in specs.values())
    parts = _part_sizes(specs, shapes)
    merged = [(name_of(adapter.folder), weight) for adapter, weight in adapters]
    report = ConversionReport(target, str(origin), size_bytes, num_weights, plan, reasons, layers, parts, notes, merged)
    needed_bytes = size_bytes + sum(file.stat().st_size for file in companions.values())
    with whole_checkpoint(target, source.folder, needed_bytes, force) as folder:
        progress.stage(f"writing {size_bytes / 1e6:.1f} MB", size_bytes, "B")
        tensors = output_tensors(source, to_apply, target_dtype, rounding or Rounding())
        try:
            write_weights(folder, specs, tensors, progress.advance)
        finally:
            progress.close()
        copy_companions(companions, folder)
        write_json(folder / "config.json", converted_config(raw_config, source.config, entry, dtype))
        report.write(folder)
        write_card(folder, source.folder, report, command, repo_id)
    return report


def _part_sizes(specs: Mapping[str, TensorSpec], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, int]]:
    """Bytes of the tensors and number of weights of each part."""
    sizes = dict.fromkeys(PARTS, 0)
    counts = dict.fromkeys(PARTS, 0)
    for name, spec in specs.items():
        sizes[part_of(name)] += spec.size_bytes
    for name, shape in shapes.items():
        counts[part_of(name)] += math.prod(shape)
    return {part: (sizes[part], counts[part]) for part in PARTS if counts[part]}


def _requantization_notes(before: Plan, after: Plan) -> list[str]:
    """What quantizing what is quantized already cannot give."""
    regained, again = Counter[str](), 0
    for path, old in before.items():
        new = after.get(path)
        if old and (new is None or new.bits > old.bits):
            regained[f"{old.bits} to {new.bits} bits" if new else f"{old.bits} bits to full precision"] += 1
        elif old and new != old:
            again += 1
    notes = [
        f"{count} layer{'s' * (count != 1)} from {what}: that makes the files larger and regains nothing of what was "
        "rounded off; convert the original checkpoint for that"
        for what, count in regained.items()
    ]
    if again:
        notes.append(
            f"{again} layer{'s' * (again != 1)} had been quantized before, and the errors of both times add up; "
            "converting the original checkpoint is more exact"
        )
    return notes


def _plan(
    source: Source,
    quantization: QuantizationOptions | None,
    plan: Plan | None,
    dequantize: bool,
    allow_unquantized: bool,
) -> tuple[Plan, dict[str, str]]:
    """The format of each layer of the new folder, and the reason of each that has none."""
    layers = source.layers
    if quantization is not None:
        chosen, reasons = plan_quantization(layers, quantization)
        if not allow_unquantized:
            refuse_unquantized(chosen, reasons, layers, quantization)
        return chosen, reasons
    if dequantize and not source.formats:
        raise ValueError(f"{source.folder} is not quantized: nothing to dequantize")
    if plan is not None:
        check_plan(plan, layers)
    kept = plan if plan is not None else {} if dequantize else source.formats
    complete = {path: kept.get(path) for path in layers}
    reason = "the plan leaves it in full precision" if plan is not None else "nothing was asked for"
    return complete, {path: reason for path, layer_format in complete.items() if layer_format is None}
