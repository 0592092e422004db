"""Writes a checkpoint folder whole or not at all."""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..weights import INDEX

MAX_SHARD_BYTES = 5 * 1024**3  # as the ecosystem's other converters
_COPIED = ("*.json", "*.jinja", "*.txt", "LICENSE*")  # tokenizer, templates, processors; never code or weights
_NOT_COPIED = ("config.json", INDEX)  # written anew


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its name when the block ends well, and vanishes otherwise.

    Raises:
        FileExistsError: the target exists and is not an empty folder.
    """
    target = target.absolute()
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise FileExistsError(f"{target} exists already; choose another --mlx-path or remove it first")
    made = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.partial.", dir=target.parent) as temporary:
            folder = Path(temporary) / "checkpoint"
            folder.mkdir()
            yield folder
            if target.exists():
                target.rmdir()  # empty
            folder.rename(target)
    except BaseException:
        with suppress(OSError):  # of a parent that meanwhile holds something else
            for parent in made:
                parent.rmdir()
        raise


def write_weights(folder: Path, tensors: Iterable[tuple[str, mx.array]]) -> int:
    """Write tensors as `model.safetensors`, or as shards with an index; returns their size in bytes.

    Tensors are evaluated one by one as they come, and a full shard is written and let go before the next.
    """
    shards: list[Path] = []
    weight_map: dict[str, int] = {}
    pending: dict[str, mx.array] = {}
    total = held = 0

    def flush() -> None:
        nonlocal held
        shards.append(folder / f"shard{len(shards)}.safetensors")
        mx.save_safetensors(str(shards[-1]), pending, metadata={"format": "mlx"})
        pending.clear()
        held = 0

    for name, array in tensors:
        mx.eval(array)
        if pending and held + array.nbytes > MAX_SHARD_BYTES:
            flush()
        pending[name] = array
        weight_map[name] = len(shards)
        held += array.nbytes
        total += array.nbytes
    flush()
    if len(shards) == 1:
        shards[0].rename(folder / "model.safetensors")
        return total
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    for shard, name in zip(shards, names, strict=True):
        shard.rename(folder / name)
    index = {"metadata": {"total_size": total}, "weight_map": {k: names[v] for k, v in sorted(weight_map.items())}}
    write_json(folder / INDEX, index)
    return total


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Indented JSON with a final newline."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def copy_companions(source: Path, folder: Path) -> None:
    """Copy what else a user needs: tokenizer, chat template, processor and generation settings, licence."""
    for pattern in _COPIED:
        for file in sorted(source.glob(pattern)):
            if file.is_file() and file.name not in _NOT_COPIED:
                shutil.copyfile(file, folder / file.name)
