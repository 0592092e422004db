"""Checkpoint weight files -> named tensors, in the names and axis order of MLX-community files.

Two layouts exist, and names tell them apart: Hugging Face's (`model.text_model...`, convolutions as
output, input, height, width) and MLX-community's (`language_model...`, output, height, width, input).
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from safetensors import SafetensorError, safe_open

from ..options import quoted
from .checkpoint_folder import PEFT_WEIGHTS, incomplete_download, stray_weights
from .json_fields import doubled_key, read_json

INDEX = "model.safetensors.index.json"
MAX_HEADER_BYTES = 16 * 1024**2  # of a safetensors file; some 100 bytes for each tensor
MAX_NAME_CHARS = 300  # of a tensor
PATCH_EMBEDDING_WEIGHT = "vision_model.embeddings.patch_embedding.weight"

_HF_PREFIXES = {  # Hugging Face -> MLX-community
    "model.text_model.": "language_model.",
    "model.vision_model.": "vision_model.",
    "model.connector.": "connector.",
    "lm_head.": "language_model.lm_head.",
}
_BUFFERS = ("embeddings.position_ids", "rotary_emb.inv_freq")  # saved by old versions, computed now


@dataclass(frozen=True)
class TensorInfo:
    """The place of one tensor; `shape` is that in the file, before axes are reordered."""

    file: Path
    name_in_file: str
    shape: tuple[int, ...]

    @property
    def is_huggingface(self) -> bool:
        """Whether the file is in Hugging Face layout, by this name."""
        return self.name_in_file.startswith(tuple(_HF_PREFIXES))


def mlx_name(name: str) -> str:
    """A tensor's name in MLX-community files, from either layout."""
    for prefix, replacement in _HF_PREFIXES.items():
        if name.startswith(prefix):
            return replacement + name.removeprefix(prefix)
    return name


def hf_name(name: str) -> str:
    """The Hugging Face name of a tensor, from its MLX-community name."""
    for prefix, replacement in reversed(_HF_PREFIXES.items()):  # the head before the decoder that it is part of
        if name.startswith(replacement):
            return prefix + name.removeprefix(replacement)
    return name


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, whole and by its index if it has one.

    Raises:
        FileNotFoundError: no weights, only pickled ones, or a shard that the index names is missing.
    """
    index = folder / INDEX
    if index.is_file():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise ValueError(f"{index} has no 'weight_map' of tensor names to files")
        names = sorted(set(weight_map.values()))
        elsewhere = [name for name in names if Path(name).name != name]
        if elsewhere:
            raise ValueError(f"{index} names a file outside its folder: {quoted(elsewhere[0])}")
        files = [folder / name for name in names]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            step = incomplete_download(folder) or "download it again"
            listed = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
            raise FileNotFoundError(f"{folder} lacks {listed}, named in {INDEX}; {step}")
        return files
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern))
        if pickled:
            raise FileNotFoundError(
                f"{folder} has only pickled weights ({pickled[0]}), which can run code when read; "
                "use a checkpoint with .safetensors files"
            )
        ggufs = sorted(file.name for file in folder.glob("*.gguf"))
        if ggufs:
            raise FileNotFoundError(
                f"{folder} has no .safetensors files, but {ggufs[0]}, which llama.cpp reads; "
                "use the checkpoint that it was made from"
            )
        advice = incomplete_download(folder)
        raise FileNotFoundError(f"no .safetensors files in {folder}" + (f": {advice}" if advice else ""))
    if [file.name for file in files] == [PEFT_WEIGHTS]:
        raise FileNotFoundError(
            f"{folder} holds the weights of a LoRA adapter only ({PEFT_WEIGHTS}); pass its base as the model, and the "
            f"adapter beside it: --model BASE --adapter-path {folder}"
        )
    _check_numbers(folder, [file.name for file in files])
    if strays := stray_weights([file.name for file in files]):
        names, beside = strays
        raise ValueError(
            f"{folder} holds {', '.join(names)} beside {beside}, and no {INDEX} says that they belong to the model; "
            "move them elsewhere"
        )
    return files


def _check_numbers(folder: Path, names: list[str]) -> None:
    """Refuse shards without an index of which some are missing."""
    for name in names:
        if match := re.fullmatch(r"(.+)-(\d+)-of-(\d+)\.safetensors", name):
            first, width, total = match[1], len(match[2]), int(match[3])
            whole = [f"{first}-{number:0{width}}-of-{match[3]}.safetensors" for number in range(1, min(total, 999) + 1)]
            if missing := [shard for shard in whole if shard not in names]:
                advice = incomplete_download(folder) or "download it again"
                raise FileNotFoundError(f"{folder} lacks {missing[0]}, one of {total} files; {advice}")


def read_index(folder: Path) -> dict[str, TensorInfo]:
    """Every tensor of a checkpoint by its MLX-community name, from the files' headers alone.

    Raises:
        ValueError: a file is truncated or not safetensors, or two tensors have one name.
    """
    tensors: dict[str, TensorInfo] = {}
    for file in weight_files(folder):
        for name, shape in read_shapes(file).items():
            if name.endswith(_BUFFERS):
                continue
            info = TensorInfo(file, name, shape)
            other = tensors.setdefault(mlx_name(name), info)
            if other is not info:
                raise ValueError(f"{mlx_name(name)} is both in {other.file.name} and in {file.name}")
    return tensors


def read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in a safetensors file, from its header, which is checked: MLX itself does not.

    Raises:
        ValueError: the file is truncated or holds more than its tensors, tensors overlap, one is there twice, or the
            header is out of all proportion.
    """
    if not file.is_file():
        raise ValueError(f"{file} is a folder, a pipe or a device, not a safetensors file; remove it")
    try:
        with file.open("rb") as opened:
            num_bytes = int.from_bytes(opened.read(8), "little")
            if num_bytes <= MAX_HEADER_BYTES:
                json.loads(opened.read(num_bytes), object_pairs_hook=_unique)
        with safe_open(file, framework="numpy") as reader:
            shapes = {name: tuple(reader.get_slice(name).get_shape()) for name in reader.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        reason = str(error)[:MAX_NAME_CHARS]
        raise ValueError(f"{file} is truncated or not a safetensors file ({reason}); download it again") from None
    if num_bytes > MAX_HEADER_BYTES:
        raise ValueError(f"{file} has a header of {num_bytes} bytes, the limit is {MAX_HEADER_BYTES}")
    long = next((name for name in shapes if len(name) > MAX_NAME_CHARS), None)
    if long is not None:
        raise ValueError(f"{file}: a tensor's name has {len(long)} characters, the limit is {MAX_NAME_CHARS}")
    return shapes


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names are unique."""
    if (twice := doubled_key(pairs)) is not None:
        raise ValueError(f"{twice} is there twice")
    return dict(pairs)


def load_tensors(tensors: Iterable[tuple[str, TensorInfo]]) -> dict[str, mx.array]:
    """Lazy arrays by MLX-community name, axes in MLX's order; nothing is read before evaluation."""
    opened: dict[Path, dict[str, mx.array]] = {}
    arrays = {}
    for name, info in tensors:
        if info.file not in opened:
            try:
                opened[info.file] = dict(mx.load(str(info.file)))  # type: ignore[arg-type]
            except RuntimeError as error:  # such as a dtype that MLX does not have
                raise ValueError(f"{info.file} cannot be read by MLX: {error}") from None
        array = opened[info.file][info.name_in_file]
        if name == PATCH_EMBEDDING_WEIGHT and info.is_huggingface:
            array = array.transpose(0, 2, 3, 1)  # (out, in, height, width) -> (out, height, width, in)
        arrays[name] = array
    return arrays
