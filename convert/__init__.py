"""Hugging Face checkpoint -> MLX folder: `python -m mlx_smolvlm.convert`."""

from .checkpoint import convert_checkpoint
from .plan import Plan, QuantizationOptions, plan_quantization
from .quantize import LayerFormat, Rounding
from .report import ConversionReport
from .source import Source, open_source

__all__ = [
    "ConversionReport",
    "LayerFormat",
    "Plan",
    "QuantizationOptions",
    "Rounding",
    "Source",
    "convert_checkpoint",
    "open_source",
    "plan_quantization",
]
