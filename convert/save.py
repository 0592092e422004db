"""Writes a checkpoint folder whole or not at all."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..weights import INDEX

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


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Indented JSON with a final newline."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def copy_companions(source: Path, folder: Path) -> None:
    """Copy what else a user needs: tokenizer, chat template, processor and generation settings, licence."""
    for pattern in _COPIED:
        for file in sorted(source.glob(pattern)):
            if file.is_file() and file.name not in _NOT_COPIED:
                shutil.copyfile(file, folder / file.name)
