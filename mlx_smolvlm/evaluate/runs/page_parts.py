"""Pieces of self-contained HTML pages: text, tables, drawings in SVG, and small images within the page."""

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any

from ...media.images import load_image
from ..data.eval_rows import EvalRow
from ..prompts.frame_choice import choose, frame_files

MADE_BY = "mlx-smolvlm evaluate"  # in the page, by which it is known
_SIDE = 220  # pixels of an image in a page
_FRAMES = 4  # of a video
_LONG = 600  # characters of a text in a page
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .25rem .7rem; text-align: left }
th { border-bottom: 2px solid #999 } td { border-bottom: 1px solid #ddd } .number { text-align: right }
.rows { display: grid; grid-template-columns: repeat(auto-fill, minmax(21rem, 1fr)); gap: 1rem }
.row { border: 1px solid #ccc; border-left: 6px solid #999; border-radius: 4px; padding: .6rem; overflow: hidden }
.right { border-left-color: #2a7d3f } .wrong { border-left-color: #b3372f } .failed { border-left-color: #8a6d00 }
.row img { max-height: 10rem; margin: 0 .3rem .3rem 0; border: 1px solid #ddd }
pre { white-space: pre-wrap; overflow-wrap: anywhere }
.row pre { background: #f4f4f4; padding: .4rem; max-height: 12rem; overflow: auto; font-size: 13px }
svg { margin: 1rem 0 }
"""


def page(title: str, *parts: str) -> str:
    """A whole page."""
    head = f"<meta charset='utf-8'><meta name='generator' content='{MADE_BY}'>"
    head += "<meta name='viewport' content='width=device-width'>"
    body = "\n".join([f"<h1>{escape(title)}</h1>", *parts])
    return (
        f"<!doctype html>\n<html lang='en'>\n<head>{head}<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; numbers stand to the right."""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = ["".join(_cell(value) for value in row) for row in rows]
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _cell(value: object) -> str:
    if isinstance(value, int | float):
        return f"<td class='number'>{value if isinstance(value, int) else f'{value:.2f}'}</td>"
    return f"<td>{escape(str(value))}</td>"


def bars(title: str, values: Sequence[tuple[str, float, float, float]]) -> str:
    """Bars from 0 to 100 with their intervals.

    Args:
        title: above them.
        values: (name, value, low, high).
    """
    left, width, height = 240, 520, 24
    lines = [f"<text x='0' y='16' font-weight='bold'>{escape(title)}</text>"]
    for number, (name, value, low, high) in enumerate(values):
        y = 28 + number * height
        middle = y + 9
        lines.append(f"<text x='{left - 8}' y='{y + 14}' text-anchor='end'>{escape(name[:32])}</text>")
        lines.append(f"<rect x='{left}' y='{y}' width='{_x(value, width):.1f}' height='18' fill='#5b8db8'/>")
        start, end = left + _x(low, width), left + _x(high, width)
        lines.append(f"<path d='M{start:.1f} {middle}H{end:.1f}' stroke='#222' stroke-width='2'/>")
        lines.append(f"<text x='{left + width + 8}' y='{y + 14}'>{value:.1f}</text>")
    bottom = 32 + len(values) * height
    for share in range(0, 101, 25):
        lines.append(f"<text x='{left + _x(share, width):.1f}' y='{bottom + 12}' text-anchor='middle'>{share}</text>")
    return _svg(left + width + 60, bottom + 18, lines)


def columns(title: str, names: Sequence[str], counts: Sequence[int]) -> str:
    """Columns of counts, one for each name."""
    step, height, most = 68, 130, max([1, *counts])
    lines = [f"<text x='0' y='16' font-weight='bold'>{escape(title)}</text>"]
    for number, (name, count) in enumerate(zip(names, counts, strict=True)):
        tall = height * count / most
        x = 10 + number * step
        lines.append(
            f"<rect x='{x}' y='{40 + height - tall:.1f}' width='{step - 8}' height='{tall:.1f}' fill='#5b8db8'/>"
        )
        middle = x + (step - 8) / 2
        lines.append(f"<text x='{middle}' y='{34 + height - tall:.1f}' text-anchor='middle'>{count}</text>")
        lines.append(f"<text x='{middle}' y='{56 + height}' text-anchor='middle'>{escape(name)}</text>")
    return _svg(20 + len(names) * step, height + 66, lines)


def _x(value: float, width: float) -> float:
    return width * min(100.0, max(0.0, value)) / 100


def _svg(width: float, height: float, lines: Sequence[str]) -> str:
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' viewBox='0 0 {width} {height}' "
        f"font-family='system-ui, sans-serif' font-size='12'>{''.join(lines)}</svg>"
    )


def example(kind: str, row: EvalRow | None, title: str, *texts: tuple[str, object]) -> str:
    """One row with its images: `kind` is right, wrong or failed; `texts` are (name, value)."""
    shown = images_of(row) if row is not None else ""
    lines = [f"<b>{escape(title)}</b>", f"<div>{shown}</div>"]
    if row is not None:
        question = row.question + "".join(f"\n{letter}. {text}" for letter, text in row.options.items())
        question += "".join(f"\n- {text}" for text in row.candidates or [])
        lines.append(f"<pre>{escape(_short(question))}</pre>")
    lines += [f"<div>{escape(name)}: <b>{escape(_short(str(value)))}</b></div>" for name, value in texts]
    return f"<div class='row {kind}'>{''.join(lines)}</div>"


def _short(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[:_LONG]}..."


def images_of(row: EvalRow) -> str:
    """A row's images, small, or a few frames of its video; a note where one cannot be read."""
    try:
        return "".join(f"<img alt='' src='{_data_url(source)}'>" for source in _sources(row))
    except (ValueError, OSError) as error:
        return f"<i>{escape(str(error)[:200])}</i>"


def _sources(row: EvalRow) -> list[Any]:
    listed = row.frames if isinstance(row.frames, list) else row.images
    if row.video is None:
        return [image.load() for image in listed[:_FRAMES]]
    frames = choose(row)
    wanted = sorted({len(frames.indices) * part // _FRAMES for part in range(_FRAMES)})
    return list(frame_files(frames, wanted))


def _data_url(source: Any) -> str:
    image = load_image(source)
    image.thumbnail((_SIDE, _SIDE))
    written = io.BytesIO()
    image.save(written, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode('ascii')}"
