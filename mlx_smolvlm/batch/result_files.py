"""Which files belong to a results file."""

import re
from pathlib import Path


def rank_file(out: Path, rank: int) -> Path:
    """The results file of a process other than the first."""
    return out.with_name(f"{out.name}.rank{rank}")


def rank_files(out: Path) -> list[Path]:
    """Those that there are, named as `rank_file` names them."""
    number = re.compile(rf"{re.escape(out.name)}\.rank\d+")
    return sorted(out.with_name(path.name) for path in out.absolute().parent.iterdir() if number.fullmatch(path.name))


def is_results_file(path: Path, out: Path) -> bool:
    """Whether a file is the results file, or one of those beside it."""
    beside = re.fullmatch(rf"{re.escape(out.name)}(\.rank\d+)?", path.name)
    return bool(beside) and path.absolute().parent.resolve() == out.absolute().parent.resolve()
