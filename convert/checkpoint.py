"""One conversion, from a checkpoint to a folder."""

from pathlib import Path

from ..json_fields import read_json
from ..loading import DTYPES
from .configuration import converted_config
from .plan import Plan, QuantizationOptions, check_plan, config_entry, plan_quantization
from .quantize import Rounding
from .report import ConversionReport
from .save import copy_companions, whole_folder, write_json
from .shards import write_weights
from .source import open_source
from .tensors import output_specs, output_tensors


def convert_checkpoint(
    path_or_hub_id: str | Path,
    mlx_path: str | Path,
    *,
    quantization: QuantizationOptions | None = None,
    plan: Plan | None = None,
    rounding: Rounding | None = None,
    dequantize: bool = False,
    dtype: str | None = None,
    revision: str | None = None,
) -> ConversionReport:
    """Convert a checkpoint to an MLX-community folder, readable here, by mlx-vlm and by mlx-swift-lm.

    Tensors are read, converted and written one at a time.

    Args:
        path_or_hub_id: a folder or a Hub id. Layers that are quantized already are dequantized where `quantization`,
            `plan` or `dequantize` ask for it, and copied otherwise.
        mlx_path: the folder to make. It appears when it is whole.
        quantization: what to quantize; None for nothing.
        plan: instead of `quantization`, the format of each layer by its path; layers left out keep full precision.
        rounding: how weights are transformed and rounded; None rounds to nearest.
        dequantize: turn a quantized checkpoint into a plain one.
        dtype: "bfloat16", "float16" or "float32" for what is not quantized; None keeps the types of the file.
        revision: branch, tag or commit on the Hub.

    Raises:
        FileNotFoundError: no such checkpoint, or files are missing from it.
        FileExistsError: `mlx_path` exists and is not empty.
        ValueError: damaged or contradictory files, or options that contradict each other.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}")
    if (quantization is not None) + (plan is not None) + dequantize > 1:
        raise ValueError("quantization, a plan and dequantize exclude each other; give one of them")
    source = open_source(path_or_hub_id, revision=revision)
    layers = source.layers
    num_weights = source.num_weights
    reasons: dict[str, str] = {}
    if quantization is not None:
        plan, reasons = plan_quantization(layers, quantization)
    elif plan is not None:
        check_plan(plan, layers)
        plan = {path: plan.get(path) for path in layers}
        reasons = {path: "the plan leaves it" for path, layer_format in plan.items() if layer_format is None}
    elif dequantize:
        if not source.formats:
            raise ValueError(f"{source.folder} is not quantized: nothing to dequantize")
        plan = dict.fromkeys(layers)
    if plan is None and source.formats:
        entry = source.config.quantization
        plan, source = {}, source.as_stored()
    else:
        plan = dict.fromkeys(layers) if plan is None else plan
        entry = config_entry(plan)
    raw_config = read_json(source.folder / "config.json")
    target_dtype = DTYPES[dtype] if dtype else None
    specs = output_specs(source, plan, target_dtype)
    report = ConversionReport(
        Path(mlx_path).expanduser().absolute(),
        sum(spec.size_bytes for spec in specs.values()),
        num_weights,
        plan,
        reasons,
        layers,
    )
    with whole_folder(report.folder) as folder:
        write_weights(folder, specs, output_tensors(source, plan, target_dtype, rounding or Rounding()))
        copy_companions(source.folder, folder)
        write_json(
            folder / "config.json", converted_config(raw_config, source.config, entry)
        )
    return report
