"""The modules of the package, for the tests of its layout."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "mlx_smolvlm"


def modules_of(folder: Path, *rooms: str) -> Iterator[tuple[tuple[str, ...], Path]]:
    """(("room", ..., "module"), file) of every module in a folder; follows links, as `convert` is one."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from modules_of(path, *rooms, path.name)
        elif path.suffix == ".py":
            yield (*rooms, path.stem), path


@cache
def tree_of(path: Path) -> ast.Module:
    """The syntax of a file; do not change it."""
    return ast.parse(path.read_text(encoding="utf-8"))


MODULES = {name: path for name, path in modules_of(PACKAGE) if name != ("__init__",)}
