"""`report.html` of a run: its options, curves, and answers to held rows beside their images. One file, no scripts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from ...files import refuse_foreign, whole_file
from .curves import Points, curves_svg
from .metrics_log import Record

_MARK = "<!-- report of a training run, written by mlx-smolvlm -->"
_STYLE = """body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em }
table { border-collapse: collapse } td, th { padding: .2em .8em .2em 0; text-align: left; vertical-align: top }
p { white-space: pre-wrap; overflow-wrap: anywhere; margin: .2em 0 } svg { max-width: 100%; height: auto }
img { margin: 0 4px 4px 0 } section { border-top: 1px solid #8886; padding: .6em 0 } i { opacity: .6 }"""


@dataclass(frozen=True)
class HeldAnswer:
    """A held row and what the model answers.

    Attributes:
        row: its name.
        question: what is asked, as text.
        expected: the row's own answer.
        images: data URLs of what the model sees.
        answers: (step, answer), in the order of steps.
    """

    row: str
    question: str
    expected: str
    images: Sequence[str]
    answers: Sequence[tuple[int, str]]


def write_report(
    target: Path, title: str, facts: Mapping[str, Any], records: Sequence[Record], samples: Sequence[HeldAnswer] = ()
) -> None:
    """Write the report, whole or not at all, in the place of an earlier one.

    Raises:
        FileExistsError: another file is there.
        OSError: it cannot be written.
    """
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in facts.items())
    charts = [
        curves_svg("Loss", {"training": curve(records, "loss"), "validation": curve(records, "validation_loss")}),
        curves_svg("Learning rate", {"learning rate": curve(records, "learning_rate")}),
    ]
    shown = "".join(_shown(sample) for sample in samples)
    body = f"<h1>{escape(title)}</h1><table>{rows}</table>{''.join(charts)}"
    body += f"<h2>Answers to held rows</h2>{shown}" if shown else ""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    with whole_file(target, check_report) as file:
        text = f'<!doctype html>\n{_MARK}\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'
        file.write_text(text, encoding="utf-8", errors="replace")


def check_report(target: Path) -> None:
    """Raise FileExistsError if a file that is there is no such report."""
    refuse_foreign(target, lambda path: _MARK.encode() in path.read_bytes()[:200], "report of a training run")


def curve(records: Sequence[Record], name: str) -> Points:
    """(step, value) of the records that have a finite value."""
    found = [(record["step"], record.get(name)) for record in records]
    return [(step, value) for step, value in found if isinstance(value, int | float) and math.isfinite(value)]


def _shown(sample: HeldAnswer) -> str:
    images = "".join(f'<img alt="" src="{url}">' for url in sample.images)
    answers = "".join(f"<tr><td>step {step}</td><td><p>{escape(text)}</p></td></tr>" for step, text in sample.answers)
    return (
        f"<section><i>{escape(sample.row)}</i><p>{escape(sample.question)}</p>{images}<table>"
        f"<tr><td>expected</td><td><p>{escape(sample.expected)}</p></td></tr>{answers}</table></section>"
    )
