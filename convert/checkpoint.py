"""One conversion, from a checkpoint to a folder."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..config import ModelConfig, read_model_config
from ..json_fields import read_json
from ..loading import DTYPES, find_checkpoint, open_checkpoint
from ..processing import load_processor
from .quantize import QuantizationOptions
from .save import copy_companions, whole_folder, write_json, write_weights


@dataclass
class ConversionReport:
    """What a conversion did; `not_quantized` names the decoder's layers that were left as they are, and why."""

    folder: Path
    size_bytes: int = 0
    num_weights: int = 0
    quantized: list[str] = field(default_factory=list)
    not_quantized: dict[str, str] = field(default_factory=dict)

    @property
    def bits_per_weight(self) -> float:
        """Bits of the files per weight of the model, scales included."""
        return 8 * self.size_bytes / self.num_weights


def convert_checkpoint(
    path_or_hub_id: str | Path,
    mlx_path: str | Path,
    *,
    quantization: QuantizationOptions | None = None,
    dtype: str | None = None,
    revision: str | None = None,
) -> ConversionReport:
    """Convert a checkpoint to an MLX-community folder, readable here, by mlx-vlm and by mlx-swift-lm.

    Args:
        path_or_hub_id: a folder or a Hub id.
        mlx_path: the folder to make. It appears when it is whole.
        quantization: how the decoder's matrices are quantized; None leaves them. Encoder and connector stay as
            they are.
        dtype: "bfloat16", "float16" or "float32" for what is not quantized; None keeps the types of the file.
        revision: branch, tag or commit on the Hub.

    Raises:
        FileNotFoundError: no such checkpoint, or files are missing from it.
        FileExistsError: `mlx_path` exists and is not empty.
        ValueError: damaged or contradictory files, or a checkpoint that is quantized already.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}")
    source = find_checkpoint(path_or_hub_id, revision=revision)
    config = read_model_config(source)
    if config.quantization and quantization:
        raise ValueError(f"{source} is quantized already; quantize the original checkpoint instead")
    load_processor(source, config)  # a folder that could not be used is refused before anything is written
    _, weights = open_checkpoint(source, config)
    report = ConversionReport(Path(mlx_path).expanduser().absolute())
    with whole_folder(report.folder) as folder:
        report.num_weights = sum(_num_weights(name, array, config) for name, array in weights.items())
        report.size_bytes = write_weights(folder, _converted(weights, quantization, dtype, report))
        copy_companions(source, folder)
        write_json(folder / "config.json", _config(read_json(source / "config.json"), config, quantization, report))
    return report


def _num_weights(name: str, array: mx.array, config: ModelConfig) -> int:
    """How many weights a tensor of the source stands for: codes pack several, their scales none."""
    if config.quantization is None or not name.endswith((".scales", ".biases", ".weight")):
        return array.size
    if not name.endswith(".weight"):
        return 0
    layer = config.quantization.get(name.removesuffix(".weight"))
    bits = (layer if isinstance(layer, dict) else config.quantization)["bits"]
    return array.size * 32 // bits if array.dtype == mx.uint32 else array.size


def _converted(
    weights: dict[str, mx.array], quantization: QuantizationOptions | None, dtype: str | None, report: ConversionReport
) -> Iterator[tuple[str, mx.array]]:
    """The tensors to write, one source tensor at a time."""
    while weights:
        name = next(iter(weights))
        weight = weights.pop(name)  # so that its memory can go when it is written
        if dtype is not None and mx.issubdtype(weight.dtype, mx.floating):
            weight = weight.astype(DTYPES[dtype])
        if quantization is None or not quantization.is_candidate(name, weight):
            yield name, weight
        elif obstacle := quantization.obstacle(weight):
            report.not_quantized[name.removesuffix(".weight")] = obstacle
            yield name, weight
        else:
            report.quantized.append(name.removesuffix(".weight"))
            yield from quantization.quantize(name, weight).items()


def _config(
    raw: dict[str, Any], config: ModelConfig, quantization: QuantizationOptions | None, report: ConversionReport
) -> dict[str, Any]:
    """`config.json` of the new folder: the original's, with what it left to defaults written out.

    Other readers fill gaps differently (mlx-vlm takes rope_theta 1e6 where only `rope_parameters` is given).
    """
    text, vision = config.text, config.vision
    out = {
        **raw,
        "tie_word_embeddings": config.tie_word_embeddings,
        "text_config": {
            **raw["text_config"],
            "num_hidden_layers": text.num_hidden_layers,
            "num_attention_heads": text.num_attention_heads,
            "num_key_value_heads": text.num_key_value_heads,
            "intermediate_size": text.intermediate_size,
            "rms_norm_eps": text.rms_norm_eps,
            "rope_theta": text.rope_theta,
            "tie_word_embeddings": config.tie_word_embeddings,  # where mlx-vlm looks for it
        },
        "vision_config": {
            **raw["vision_config"],
            "num_hidden_layers": vision.num_hidden_layers,
            "num_attention_heads": vision.num_attention_heads,
            "intermediate_size": vision.intermediate_size,
            "num_channels": vision.num_channels,
            "layer_norm_eps": vision.layer_norm_eps,
        },
    }
    if quantization:
        entry = {**quantization.entry(), **dict.fromkeys(sorted(report.not_quantized), False)}
        out["quantization"] = out["quantization_config"] = entry
    return out
