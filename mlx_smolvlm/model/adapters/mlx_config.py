"""`adapter_config.json` as mlx-lm and mlx-vlm write it: how the tensors beside it are to be scaled.

mlx-lm, and mlx-vlm since it has `lora_parameters`, state the factor of the product (`scale`). Older versions of mlx-vlm
call it `alpha`, though it is not divided by the rank. Fields are checked by an allow-list, as PEFT's are.
"""

from pathlib import Path
from typing import Any

from ...options import quoted
from ..json_fields import Fields
from .peft_config import MAX_FACTOR, Scaling, is_factor

FINE_TUNE_TYPES = ("lora", "dora", "full")
_READ = frozenset({"fine_tune_type", "lora_parameters", "rank", "alpha"})
_NEUTRAL = frozenset(  # the options of a training run, and what the tensors' names tell anyway
    {"num_layers", "lora_layers", "dropout", "base_quantization", "model", "model_path", "train", "data", "dataset"}
    | {"seed", "optimizer", "optimizer_config", "batch_size", "iters", "epochs", "steps", "val_batches"}
    | {"learning_rate", "lr_schedule", "steps_per_report", "steps_per_eval", "steps_per_save", "save_every"}
    | {"resume_adapter_file", "adapter_path", "adapter_file", "output_path", "test", "test_batches"}
    | {"max_seq_length", "config", "grad_checkpoint", "grad_accumulation_steps", "gradient_accumulation_steps"}
    | {"mask_prompt", "train_on_completions", "wandb", "report_to", "project_name", "clear_cache_threshold"}
    | {"hf_dataset", "prompt_feature", "completion_feature", "text_feature", "chat_feature", "base_model"}
    | {"base_model_name_or_path", "revision"}
)
_NEUTRAL_PARAMETERS = frozenset({"dropout", "keys", "alpha"})  # the last one is of old mlx-lm, which did not use it


def mlx_scaling(raw: dict[str, Any], where: Path) -> tuple[str, Scaling]:
    """The kind of fine-tuning, one of `FINE_TUNE_TYPES`, and the factor of each product.

    Raises:
        ValueError: a field that is missing, out of range, or not known to be neutral.
    """
    kind = raw.get("fine_tune_type", "lora")
    if kind not in FINE_TUNE_TYPES:
        raise ValueError(f"{where}: fine_tune_type is {quoted(kind)}, expected one of {', '.join(FINE_TUNE_TYPES)}")
    _refuse_unknown(raw, _READ | _NEUTRAL, where)
    if kind == "full":
        return kind, lambda module, rank: 1.0
    if "lora_parameters" in raw:
        fields = Fields(Fields(raw, str(where)).section("lora_parameters"), f"{where}, lora_parameters")
        _refuse_unknown(fields.values, {"rank", "scale", *_NEUTRAL_PARAMETERS}, where)
        factor = fields.get("scale", float)
    else:
        fields = Fields(raw, str(where))
        factor = fields.get("alpha", float)
    stated = fields.positive("rank")
    if not is_factor(factor):
        raise ValueError(f"{where}: the scale is {quoted(factor)}, expected a number below {MAX_FACTOR:g}")

    def scaling(module: str, found_rank: int) -> float:
        if found_rank != stated:
            raise ValueError(f"{where}: rank {stated} is stated, but the matrices of {module} have {found_rank}")
        return factor

    return kind, scaling


def _refuse_unknown(raw: dict[str, Any], known: set[str] | frozenset[str], where: Path) -> None:
    for name, value in raw.items():
        if name not in known and not (value is None or value is False or value in ({}, [], "")):
            raise ValueError(
                f"{where}: {quoted(name)[1:-1]} {quoted(value, 60)} is not supported; "
                "fuse the adapter with the program that trained it"
            )
