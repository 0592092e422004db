"""Writes a checkpoint folder whole or not at all."""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..model.weights import INDEX
from .card import QUALITY
from .report import REPORT_FILE

_COPIED = ("*.json", "*.jinja", "*.txt", "LICENSE*")  # tokenizer, templates, processors; never code or weights
_NOT_COPIED = ("config.json", INDEX, REPORT_FILE, QUALITY)  # they tell of other weights
_COMPANIONS_BYTES = 64 * 1024**2  # room for what is not weights: tokenizers are the largest, with some 20 MB
_REPLACED = "replaced"  # within a temporary folder: the old target, until the new one has its place


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
def whole_folder(target: Path, source: Path, size_bytes: int, force: bool) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its name when the block ends well, and vanishes otherwise.

    What a killed run left is removed first. A checkpoint that is to be replaced, see `check_target`, stays until the
    new one is on the disk. `size_bytes` is the size of the weights.

    Raises:
        FileExistsError, ValueError: as `check_target`.
        OSError: there is no room for `size_bytes`, or the target's parent cannot be written.
    """
    made = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        _remove_remains(target)
        check_target(target, source, force)  # again: a checkpoint may have got its name back
        _check_room(target.parent, size_bytes)
        with tempfile.TemporaryDirectory(prefix=_prefix(target), dir=target.parent) as temporary:
            lock = _lock(Path(temporary))
            try:
                folder = Path(temporary) / "checkpoint"
                folder.mkdir()
                yield folder
                for file in folder.iterdir():
                    _flush(file)
                _flush(folder)
                check_target(target, source, force)  # again: another run may have been quicker
                _place(folder, target, Path(temporary) / _REPLACED)
                _flush(target.parent)
            finally:
                if lock is not None:
                    os.close(lock)
    except BaseException:
        with suppress(OSError):  # of a parent that meanwhile holds something else
            for parent in made:
                parent.rmdir()
        raise


def _place(folder: Path, target: Path, replaced: Path) -> None:
    """Give `folder` the name `target`; what had it goes to `replaced`, or stays if that fails."""
    try:
        if target.exists():
            target.rename(replaced)
        folder.rename(target)
    except BaseException:
        if replaced.exists() and not target.exists():
            replaced.rename(target)
        raise


def _prefix(target: Path) -> str:
    return f".{target.name}.partial."


def _lock(folder: Path) -> int | None:
    """Mark a folder as in use while this process lives; None if another has done so."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_remains(target: Path) -> None:
    """Clear away what killed runs left; a checkpoint that one was about to replace gets its name back."""
    for remains in target.parent.iterdir():
        lock = _lock(remains) if remains.name.startswith(_prefix(target)) else None
        if lock is None:  # something else, or of a run that lives
            continue
        try:
            if (remains / _REPLACED).exists() and not target.exists():
                (remains / _REPLACED).rename(target)
            shutil.rmtree(remains)
        finally:
            os.close(lock)


def _check_room(folder: Path, size_bytes: int) -> None:
    needed, free = size_bytes + _COMPANIONS_BYTES, shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"{folder} has {free / 1e9:.2f} GB free, but {needed / 1e9:.2f} GB are needed; make room first")


def _flush(path: Path) -> None:
    """Have the system write a file, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Indented JSON with a final newline."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def copy_companions(source: Path, folder: Path) -> None:
    """Copy what else a user needs: tokenizer, chat template, processor and generation settings, licence."""
    for pattern in _COPIED:
        for file in sorted(source.glob(pattern)):
            if file.is_file() and file.name not in _NOT_COPIED:
                shutil.copyfile(file, folder / file.name)
