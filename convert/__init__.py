"""Hugging Face checkpoint -> MLX folder: `python -m mlx_smolvlm.convert`."""

from ..command_line import starting  # noqa: F401 - first: Ctrl-C may come while the rest is imported

# isort: split
from ..command_line.runner import explain_call
from .calibration import calibrate
from .calibration_data import Sample, read_samples
from .checkpoint import convert_checkpoint
from .compare import Comparison, compare_checkpoints
from .conversion_report import ConversionReport
from .export_adapter import export_adapter
from .plan import Plan, QuantizationOptions, plan_quantization
from .quantize import LayerFormat, Rounding
from .source_checkpoint import Source, open_source
from .synthetic_samples import built_in_samples

__all__ = [
    "Comparison",
    "ConversionReport",
    "LayerFormat",
    "Plan",
    "QuantizationOptions",
    "Rounding",
    "Sample",
    "Source",
    "built_in_samples",
    "calibrate",
    "compare_checkpoints",
    "convert_checkpoint",
    "export_adapter",
    "open_source",
    "plan_quantization",
    "read_samples",
]

explain_call(__name__, "convert.convert_checkpoint(path_or_hub_id, folder)")
