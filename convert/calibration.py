"""A conversion whose bits and rounding are chosen by what the model does on samples, and the measure of the result."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from ..api.loading import DTYPES, load
from ..command_line.progress import Progress
from .calibration_data import Sample, read_samples, score_samples
from .overflow import largest_activations, overflow_warnings
from .plan import Plan, QuantizationOptions, plan_quantization
from .quantize import Rounding
from .rounding import compensation_gains, round_decoder
from .sensitivity import candidate_formats, check_target_bpw, choose_bits, measure_costs
from .source_checkpoint import Source
from .synthetic_samples import built_in_samples

_HELD_OUT = 4  # of the user's samples every fourth is kept for measuring
_OVERFLOW_IMAGES, _OVERFLOW_TEXTS = 5, 2


@dataclass(frozen=True)
class QualityData:
    """`calibration` samples choose bits and codes, `measurement` samples judge them; they share none if possible."""

    calibration: Sequence[Sample]
    measurement: Sequence[Sample]
    description: str


def quality_data(folder: str | Path | None, *, calibrating: bool) -> QualityData:
    """The user's samples (see `read_samples`), or the built-in ones.

    While calibrating, every fourth of the user's is held out for the measurement; without, all are measured on.
    """
    if folder is None:
        samples = built_in_samples("measurement")
        return QualityData(built_in_samples("calibration"), samples, "built-in samples")
    samples, name = read_samples(folder), Path(folder).expanduser().absolute().name
    if not calibrating:
        return QualityData([], samples, name)
    if len(samples) < _HELD_OUT:
        return QualityData(samples, samples, f"{name}, on which it was calibrated too")
    held_out = samples[_HELD_OUT - 1 :: _HELD_OUT]
    del samples[_HELD_OUT - 1 :: _HELD_OUT]
    return QualityData(samples, held_out, f"{name}, held out")


def calibrate(
    source: Source,
    options: QuantizationOptions,
    samples: Sequence[Sample],
    *,
    target_bpw: float | None = None,
    dtype: str | None = None,
    progress: Progress | None = None,
) -> tuple[Plan, Rounding]:
    """Choose a plan and round the decoder's layers by it; both are for `convert_checkpoint`.

    Needs memory for the whole model: in bfloat16 on a GPU if that is the type of the new folder, else in float32.

    Args:
        source: the checkpoint, not quantized.
        options: what is quantized, and in which groups. Without a target, also with how many bits.
        samples: what the model is run on.
        target_bpw: mean bits per weight of the decoder's quantized layers, embeddings and head, with their scales; the
            bits of each are chosen to meet it, but for parts that `options` names a format for. None keeps all as
            `options` has them.
        dtype: as in `convert_checkpoint`.
        progress: reports how far it is.

    Raises:
        ValueError: a source that is quantized already, a target out of reach, samples that cannot be read.
    """
    progress = progress or Progress(is_shown=False)
    if source.formats:
        raise ValueError(f"{source.folder} is quantized already: its full precision is gone; calibrate the original")
    plan, _ = plan_quantization(source.layers, options)

    def dtype_of(path: str) -> mx.Dtype:
        return DTYPES[dtype] if dtype else source.dtype(f"{path}.weight")

    scale_bits = 8 * max((dtype_of(path).size for path, layer_format in plan.items() if layer_format), default=2)
    candidates = candidate_formats(plan, options.parts)
    if target_bpw is not None:
        check_target_bpw(candidates, target_bpw, scale_bits)
    is_bfloat16 = all(dtype_of(path) == mx.bfloat16 for path in plan)
    computed_in = "bfloat16" if is_bfloat16 and mx.default_device() == mx.gpu else "float32"
    model, processor = load(source.folder, dtype=computed_in, fuse=False)
    scored = score_samples(model, processor, samples)
    if target_bpw is not None:
        progress.stage("measuring how sensitive each layer is")
        costs = measure_costs(model, scored, candidates)
        gains = compensation_gains(model, scored, costs)
        for path, gain in gains.items():
            costs[path] = {layer_format: cost * gain for layer_format, cost in costs[path].items()}
        plan |= choose_bits(costs, source.layers, target_bpw, scale_bits)
    progress.stage("rounding layer by layer")
    return plan, round_decoder(model, scored, plan, dtype_of)


def float16_warnings(folder: Path, data: str | Path | None) -> list[str]:
    """A line for each layer of a checkpoint that comes near the end of float16 on a few samples; [] if none does.

    Runs the model in float32, which needs its memory. A checkpoint that cannot be run on the samples gets one line that
    says so.
    """
    samples = read_samples(data) if data else built_in_samples("overflow", _OVERFLOW_IMAGES, _OVERFLOW_TEXTS)
    try:
        model, processor = load(folder, dtype="float32", fuse=False)
        return overflow_warnings(largest_activations(model, score_samples(model, processor, samples)))
    except (ValueError, RuntimeError, MemoryError) as error:
        if data:
            raise
        return [f"whether float16 is wide enough was not checked: {error}"]
