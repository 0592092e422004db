"""Which files belong to a results file."""

import re
from pathlib import Path

RANK = re.compile(r"\.rank\d+$")  # how the name of another process's file ends


def rank_file(out: Path, rank: int) -> Path:
    """The results file of a process other than the first."""
    return out.with_name(f"{out.name}.rank{rank}")


def rank_files(out: Path) -> list[Path]:
    """Those that there are, named as `rank_file` names them."""
    names = [path.name for path in out.absolute().parent.iterdir()]
    return sorted(out.with_name(name) for name in names if name != out.name and _belongs(name, out))


def is_results_file(path: Path, out: Path) -> bool:
    """Whether a file is the results file, or one of those beside it."""
    return _belongs(path.name, out) and path.absolute().parent.resolve() == out.absolute().parent.resolve()


def _belongs(name: str, out: Path) -> bool:
    return name == out.name or (name.startswith(f"{out.name}.") and RANK.sub("", name) == out.name)
