"""`--plot`: the curves of a run as PNG, PDF or SVG, by matplotlib, an extra."""

from collections.abc import Sequence
from pathlib import Path

from ...command_line.drawings import figure_class, write_drawing
from .metrics_log import Record
from .training_report import curve


def write_plot(target: Path, title: str, records: Sequence[Record]) -> None:
    """Draw losses and learning rate over the steps; replaces only a drawing of this program.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    figure = figure_class()(figsize=(8, 6), layout="constrained")
    figure.suptitle(title)
    losses, rates = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for name, shown in (("loss", "training"), ("validation_loss", "validation")):
        if points := curve(records, name):
            losses.plot(*zip(*points, strict=True), label=shown)
    losses.set_ylabel("loss")
    if losses.lines:
        losses.legend()
    if points := curve(records, "learning_rate"):
        rates.plot(*zip(*points, strict=True))
    rates.set_ylabel("learning rate")
    rates.set_xlabel("step")
    write_drawing(figure, target)
