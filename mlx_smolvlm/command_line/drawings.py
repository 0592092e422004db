"""Drawings of `--plot`: matplotlib, an extra, and files that replace only drawings of this program."""

from pathlib import Path
from typing import Any

from ..files import refuse_foreign, whole_file

_DRAWN_BY = "mlx-smolvlm drawing"  # in the metadata of drawings


def check_drawing(target: Path) -> None:
    """Raise FileExistsError if a drawing would replace a file that `write_drawing` has not written."""
    refuse_foreign(target, lambda path: _DRAWN_BY.encode() in path.read_bytes(), "drawing of this program")


def write_drawing(figure: Any, target: Path) -> None:
    """Save a figure of matplotlib, whole or not at all; it replaces only what this function has written.

    Raises:
        OSError: `target` is something else, or cannot be written.
    """
    field = {".png": "Software", ".svg": "Creator", ".pdf": "Creator", ".eps": "Creator", ".ps": "Creator"}
    metadata = {field[target.suffix.lower()]: _DRAWN_BY} if target.suffix.lower() in field else None
    with whole_file(target, check_drawing) as file:
        figure.savefig(file, metadata=metadata)


def check_plot(file: Path) -> None:
    """Refuse early what `--plot` could not draw or write later.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        FileNotFoundError: the folder is not there.
        FileExistsError: another file is there; only drawings of this program are replaced.
        ValueError: a format that matplotlib does not write.
    """
    if file.suffix.lower().lstrip(".") not in figure_class()().canvas.get_supported_filetypes():
        raise ValueError(f"--plot {file}: no image format is called {file.suffix!r}; try .png, .svg or .pdf")
    if not file.absolute().parent.is_dir():
        raise FileNotFoundError(f"--plot {file}: there is no folder {file.absolute().parent}")
    check_drawing(file)


def figure_class() -> Any:
    """matplotlib's class of figures, which needs no backend and opens no windows.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # an extra, slow to import
    except ModuleNotFoundError:
        raise ModuleNotFoundError("--plot needs matplotlib: pip install 'mlx-smolvlm[plot]'") from None
    return Figure
