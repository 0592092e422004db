"""An adapter -> the files of another format: PEFT's, or those that mlx-lm and mlx-vlm read.

What a format cannot say is refused. mlx-lm knows one rank and one scale for all layers: smaller ranks are filled up
with zeros, and scales that differ go into the matrices.
"""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from ..weights import PATCH_EMBEDDING_WEIGHT, hf_name
from .adapter_files import Adapter, Update
from .changes import EMBEDDINGS, HEAD

FORMATS = ("peft", "mlx-lm")


def peft_files(adapter: Adapter, base: str | None) -> tuple[dict[str, Any], dict[str, mx.array]]:
    """`adapter_config.json` and the tensors of `adapter_model.safetensors`.

    Raises:
        ValueError: an adapter that PEFT cannot represent.
    """
    updates = {hf_name(f"{path}.").removesuffix("."): update for path, update in adapter.updates.items()}
    if not updates:
        raise ValueError(
            f"{adapter.folder} holds whole tensors alone, which PEFT cannot represent; convert a checkpoint"
        )
    is_dora = _is_dora(adapter)
    tensors: dict[str, mx.array] = {}
    for module, update in updates.items():
        prefix = f"base_model.model.{module}"
        if module.endswith("embed_tokens"):
            if update.magnitude is not None:
                raise ValueError(f"{adapter.folder}: DoRA of embeddings has no counterpart in PEFT")
            tensors[f"{prefix}.lora_embedding_A"] = update.b.T
            tensors[f"{prefix}.lora_embedding_B"] = update.a.T
            continue
        tensors[f"{prefix}.lora_A.weight"] = update.a
        tensors[f"{prefix}.lora_B.weight"] = update.b
        if update.magnitude is not None:
            tensors[f"{prefix}.lora_magnitude_vector"] = update.magnitude
    saved = []
    for name, array in adapter.replaced.items():
        if name == PATCH_EMBEDDING_WEIGHT:
            array = array.transpose(0, 3, 1, 2)
        module, _, key = hf_name(name).rpartition(".")
        if module in updates:
            tensors[f"base_model.model.{module}.base_layer.{key}"] = array
        else:
            tensors[f"base_model.model.{module}.{key}"] = array
            saved.append(module)
    ranks = {module: update.a.shape[0] for module, update in updates.items()}
    alphas = {module: _plain_number(update.scaling * ranks[module]) for module, update in updates.items()}
    rank, alpha = _commonest(list(ranks.values())), _commonest(list(alphas.values()))
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base or adapter.base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "init_lora_weights": True,
        "use_dora": is_dora,
        "use_rslora": False,
        "target_modules": sorted(updates),
        "rank_pattern": {module: value for module, value in sorted(ranks.items()) if value != rank},
        "alpha_pattern": {module: value for module, value in sorted(alphas.items()) if value != alpha},
        "modules_to_save": sorted(set(saved)) or None,
    }
    return config, tensors


def mlx_files(adapter: Adapter, base: str | None) -> tuple[dict[str, Any], dict[str, mx.array]]:
    """`adapter_config.json` and the tensors of `adapters.safetensors`.

    Raises:
        ValueError: an adapter that mlx-lm cannot represent.
    """
    ranks = [update.a.shape[0] for update in adapter.updates.values()]
    scales = {update.scaling for update in adapter.updates.values()}
    rank, scale = max(ranks, default=1), scales.pop() if len(scales) == 1 else 1.0
    tensors = dict(adapter.replaced)
    for path, update in adapter.updates.items():
        factor = update.scaling / scale if scale else 0.0
        a, b = _filled_up(update, rank)
        b = b if factor == 1 else (b.astype(mx.float32) * factor).astype(b.dtype)
        is_embedding = path == EMBEDDINGS
        tensors[f"{path}.lora_a"] = b if is_embedding else a.T
        tensors[f"{path}.lora_b"] = a if is_embedding else b.T
        if update.magnitude is not None:
            tensors[f"{path}.m"] = update.magnitude
    config: dict[str, Any] = {
        "fine_tune_type": "dora" if _is_dora(adapter) else "lora" if adapter.updates else "full",
        "num_layers": -1,  # all
        "lora_parameters": {"rank": rank, "scale": scale, "dropout": 0.0, "keys": sorted(adapter.updates)},
    }
    return config | ({"model": base or adapter.base} if base or adapter.base else {}), tensors


def depends_on_tying(adapter: Adapter) -> bool:
    """Whether the formats mean different things on a base with tied embeddings.

    There, PEFT's adapters of embeddings or head change one of the two, those of mlx-lm and mlx-vlm both.
    """
    changed = [path in adapter.updates or f"{path}.weight" in adapter.replaced for path in (EMBEDDINGS, HEAD)]
    return any(changed) and (not all(changed) or not adapter.is_peft)


def _is_dora(adapter: Adapter) -> bool:
    kinds = {update.magnitude is not None for update in adapter.updates.values()}
    if len(kinds) > 1:
        raise ValueError(f"{adapter.folder} mixes LoRA and DoRA, which one configuration cannot say")
    return kinds == {True}


def _filled_up(update: Update, rank: int) -> tuple[mx.array, mx.array]:
    missing = rank - update.a.shape[0]
    if not missing:
        return update.a, update.b
    return mx.pad(update.a, [(0, missing), (0, 0)]), mx.pad(update.b, [(0, 0), (0, missing)])


def _plain_number(value: float) -> int | float:
    """8 rather than 8.0, as PEFT writes alpha."""
    return int(value) if value.is_integer() else value


def _commonest(values: Sequence[Any]) -> Any:
    return max(sorted(set(values)), key=values.count)
