"""What a folder is that was given as a model or as an adapter, and what to do if it is neither."""

import json
import re
from pathlib import Path
from typing import Any

ADAPTER_CONFIG = "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"
MLX_ADAPTER_WEIGHTS = ("adapters.safetensors", "adapters.npz")
_MLX_ADAPTER_FIELDS = frozenset({"fine_tune_type", "lora_parameters", "num_layers", "lora_layers"})
_USE = "pass its base as the model, and the adapter beside it: --model {base} --adapter-path {folder}"


def check_folder(folder: Path) -> None:
    """Refuse a folder that is no model, or only part of one.

    Raises:
        FileNotFoundError: it says what the folder is, and what to do.
    """
    if (folder / "config.json").is_file():
        return
    raise FileNotFoundError(_what_it_is(folder) or f"no config.json in {folder}: not a model folder")


def check_adapter_folder(folder: Path) -> None:
    """Refuse a folder that is no adapter of PEFT, mlx-lm or mlx-vlm.

    Raises:
        FileNotFoundError: it says what the folder is, and what to do.
    """
    if (folder / ADAPTER_CONFIG).is_file() or is_mlx_adapter(folder):
        return
    if (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} is a model, not an adapter; pass it as the model")
    if (folder / PEFT_WEIGHTS).is_file():
        raise FileNotFoundError(f"no {ADAPTER_CONFIG} in {folder}, which says how its tensors are scaled")
    if inner := sorted(path.parent for path in folder.glob(f"*/{ADAPTER_CONFIG}")):
        raise FileNotFoundError(f"no {ADAPTER_CONFIG} in {folder}, but in {inner[0]}; pass that folder")
    raise FileNotFoundError(
        _what_it_is(folder) or f"no {ADAPTER_CONFIG} in {folder}: not an adapter of PEFT, mlx-lm or mlx-vlm"
    )


def refused_file(path: Path) -> str:
    """What to say of a file that was given in place of a folder."""
    if path.suffix.lower() == ".gguf":
        return f"{path} is a GGUF file, which llama.cpp reads; {_original()}"
    if path.suffix.lower() in (".bin", ".pt", ".pth", ".ckpt"):
        return f"{path} may hold pickled weights, which can run code when read; use a folder with .safetensors files"
    if path.name in (ADAPTER_CONFIG, PEFT_WEIGHTS, *MLX_ADAPTER_WEIGHTS):
        return f"{path} is a file of an adapter; name the folder that it is in"
    return f"{path} is a file; name the folder of the model or adapter, not a file"


def incomplete_download(folder: Path) -> str | None:
    """What to do about a folder that the Hub's client has not finished; None if that is not to be seen.

    Looks at the client's cache (`models--OWNER--NAME/snapshots/COMMIT`) and at folders made by `--local-dir`.
    """
    repository = folder.parent.parent
    if folder.parent.name == "snapshots" and repository.name.startswith("models--"):
        name = repository.name.removeprefix("models--").replace("--", "/", 1)
        return f"the download of {name} is not complete; finish it with: hf download {name}"
    parts = folder / ".cache" / "huggingface" / "download"
    if parts.is_dir() and any(parts.rglob("*.incomplete")):
        return f"the download is not complete; finish it with: hf download NAME --local-dir {folder}"
    return None


def _what_it_is(folder: Path) -> str | None:
    """A folder without what was looked for; None if nothing is known about it."""
    if snapshots := sorted(path for path in folder.glob("snapshots/*") if path.is_dir()):
        return f"{folder} is a folder of the Hub's cache; the model is in {snapshots[-1]}"
    if is_mlx_adapter(folder) or (folder / ADAPTER_CONFIG).is_file() or (folder / PEFT_WEIGHTS).is_file():
        base = _config(folder).get("base_model_name_or_path")
        use = _USE.format(folder=folder, base=base if isinstance(base, str) and base else "BASE")
        return f"{folder} is a LoRA adapter, not a model; {use}"
    if ggufs := sorted(folder.glob("*.gguf")):
        return f"{folder} holds a GGUF file ({ggufs[0].name}), which llama.cpp reads; {_original()}"
    if advice := incomplete_download(folder):
        return f"no config.json in {folder}: {advice}"
    if inner := sorted(path.parent for path in folder.glob("*/config.json")):
        return f"no config.json in {folder}, but in {inner[0]}; pass that folder"
    return None


def is_mlx_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter of mlx-lm or mlx-vlm."""
    if (folder / PEFT_WEIGHTS).is_file():
        return False
    config = _config(folder)
    has_weights = any((folder / name).is_file() for name in MLX_ADAPTER_WEIGHTS)
    return "peft_type" not in config and (has_weights or bool(config.keys() & _MLX_ADAPTER_FIELDS))


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _original() -> str:
    return "use the checkpoint that it was made from, a folder or Hub repository with .safetensors files"


def stray_weights(names: list[str]) -> tuple[list[str], str] | None:
    """Of weight files without an index: which ones stand in the way, and beside what; None if all may belong together.

    Args:
        names: of all .safetensors files, sorted.
    """
    shard = re.compile(r"(.+-)\d+(-of-\d+\.safetensors)")
    if len(names) < 2:
        return None
    if "model.safetensors" in names:
        return [name for name in names if name != "model.safetensors"], "model.safetensors"
    families = {match[1] + match[2] for name in names if (match := shard.fullmatch(name))}
    others = [name for name in names if not shard.fullmatch(name)]
    if len(families) == 1 and others:
        return others, "the numbered files"
    return None
