"""Hugging Face checkpoint -> MLX folder: `python -m mlx_smolvlm.convert`."""

from .checkpoint import ConversionReport, convert_checkpoint
from .quantize import QuantizationOptions

__all__ = ["ConversionReport", "QuantizationOptions", "convert_checkpoint"]
