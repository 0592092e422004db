"""Writes a checkpoint folder whole or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..files import whole_folder
from ..model.weights import INDEX
from .card import QUALITY
from .conversion_report import REPORT_FILE

_COPIED = ("*.json", "*.jinja", "*.txt", "LICENSE*")  # tokenizer, templates, processors; never code or weights
_NOT_COPIED = ("config.json", INDEX, REPORT_FILE, QUALITY)  # they tell of other weights
_COMPANIONS_BYTES = 64 * 1024**2  # room for what is not weights: tokenizers are the largest, with some 20 MB


def check_target(target: Path, source: Path, force: bool) -> None:
    """Refuse a target that would take something from the user.

    Raises:
        FileExistsError: it exists, and is not an empty folder; or `force` is given and it is no checkpoint's folder.
        ValueError: it is the source, within it, or around it.
    """
    resolved, resolved_source = target.resolve(), source.resolve()
    if resolved == resolved_source:
        raise ValueError(f"--mlx-path {target} is the source itself; choose another folder")
    if resolved.is_relative_to(resolved_source):
        raise ValueError(f"--mlx-path {target} is inside the source {source}; choose a folder outside")
    if resolved_source.is_relative_to(resolved):
        raise FileExistsError(f"{target} exists already, and holds the source {source}; choose another --mlx-path")
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise FileExistsError(f"{target} exists already and is no folder; choose another --mlx-path or remove it first")
    if not target.exists() or not any(target.iterdir()):
        return
    if not force:
        raise FileExistsError(f"{target} exists already; choose another --mlx-path, or replace it with --force")
    if not (target / "config.json").is_file() or not any(target.glob("*.safetensors")):
        raise FileExistsError(f"{target} exists already and is no checkpoint; --force replaces checkpoints only")


@contextmanager
def whole_checkpoint(target: Path, source: Path, size_bytes: int, force: bool) -> Iterator[Path]:
    """A folder that takes the name `target` when the block ends well, and vanishes otherwise.

    A checkpoint that is to be replaced, see `check_target`, stays until the new one is on the disk. `size_bytes` is the
    size of the weights.

    Raises:
        FileExistsError, ValueError: as `check_target`.
        OSError: there is no room for `size_bytes`, or the target's parent cannot be written.
    """
    with whole_folder(target, lambda target: check_target(target, source, force)) as folder:
        _check_room(target.parent, size_bytes)
        yield folder


def _check_room(folder: Path, size_bytes: int) -> None:
    needed, free = size_bytes + _COMPANIONS_BYTES, shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"{folder} has {free / 1e9:.2f} GB free, but {needed / 1e9:.2f} GB are needed; make room first")


def copy_companions(source: Path, folder: Path) -> None:
    """Copy what else a user needs: tokenizer, chat template, processor and generation settings, licence."""
    for pattern in _COPIED:
        for file in sorted(source.glob(pattern)):
            if file.is_file() and file.name not in _NOT_COPIED:
                shutil.copyfile(file, folder / file.name)
