"""Writes a checkpoint folder whole or not at all."""

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..files import whole_folder
from ..media.urls import printable
from ..model.adapters.companion_files import COMPANIONS, companion_finder

# Tokenizer, templates, processors, licence; never code or weights, and nothing that a folder happens to hold besides.
_COPIED = (
    *COMPANIONS,
    "generation_config.json",
    *("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE", "LICENCE.md", "LICENCE.txt", "NOTICE", "NOTICE.txt"),
)
# What is written anew, and what other tools keep beside a checkpoint for themselves.
_WRITTEN = ("config.json", "README.md", "quantization_report.json", "quality.json", "model.safetensors.index.json")
_SHOWN_NAMES = 5
MAX_COMPANION_BYTES = 64 * 1024**2  # of one file; tokenizers are the largest, with some 20 MB
_OWN_FILES_BYTES = 64 * 1024**2  # room for config.json, the card and the report


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
    size of the weights and of the files that are copied.

    Raises:
        FileExistsError, ValueError: as `check_target`.
        OSError: there is no room for `size_bytes`, or the target's parent cannot be written.
    """
    with whole_folder(target, lambda target: check_target(target, source, force)) as folder:
        _check_room(target.parent, size_bytes)
        yield folder


def _check_room(folder: Path, size_bytes: int) -> None:
    needed, free = size_bytes + _OWN_FILES_BYTES, shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"{folder} has {free / 1e9:.2f} GB free, but {needed / 1e9:.2f} GB are needed; make room first")


def find_companions(source: Path, adapters: Sequence[Path] = ()) -> dict[str, Path]:
    """What else a user needs, by name: tokenizer, chat template, processor and generation settings, licence.

    Files beside the adapters win.

    Returns:
        Names, and where the files really are: in the folder, or where it is one of the Hub's cache among its blobs.

    Raises:
        ValueError: a file of that name is a link to another place, no regular file, or too large.
    """
    places = set()
    for folder in (path.resolve() for path in (source, *adapters)):
        places |= {folder, folder.parent.parent / "blobs"} if folder.parent.name == "snapshots" else {folder}
    find = companion_finder(source, adapters)
    found = {}
    for name in _COPIED:
        file = find(name) if name in COMPANIONS else source / name
        if not os.path.lexists(file):
            continue
        real = Path(os.path.realpath(file))
        if real.parent not in places:
            raise ValueError(f"{file} is a link to another folder, so it is not copied; put the file itself there")
        if not real.is_file():
            raise ValueError(f"{file} is no regular file, so it cannot be copied; remove it")
        size = real.stat().st_size
        if size > MAX_COMPANION_BYTES:
            raise ValueError(f"{file} has {size} bytes, the limit for this file is {MAX_COMPANION_BYTES}")
        found[name] = real
    return found


def left_out_note(source: Path) -> str:
    """One line about what the source holds and the new folder will not; empty if that is nothing.

    Hidden files, weights and what is written anew do not count.
    """
    names = [
        entry.name + "/" * entry.is_dir()
        for entry in os.scandir(source)
        if not (entry.name.startswith(".") or entry.name.endswith(".safetensors"))
        and entry.name not in (*_COPIED, *_WRITTEN)
    ]
    if not names:
        return ""
    shown = [printable(name, 60) for name in sorted(names)[:_SHOWN_NAMES]]
    num_others = max(0, len(names) - _SHOWN_NAMES)
    others = [f"{num_others} other{'s' * (num_others != 1)}"] if num_others else []
    count = "1 file" if len(names) == 1 else f"{len(names)} files or folders"
    return f"{count} of the source not copied: {', '.join([*shown, *others])}; copy by hand what you need of it"


def copy_companions(companions: dict[str, Path], folder: Path) -> None:
    """Copy what `find_companions` found. Raises ValueError if a file has been exchanged or has grown meanwhile."""
    for name, real in companions.items():
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            content = file.read(MAX_COMPANION_BYTES + 1) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
        if content is None or len(content) > MAX_COMPANION_BYTES:
            raise ValueError(f"{real} was exchanged while it was converted")
        (folder / name).write_bytes(content)
