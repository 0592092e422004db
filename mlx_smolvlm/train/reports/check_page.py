"""The page of `train --check --html`: rows with their images as the model sees them, trained tokens marked."""

import base64
import html
import io
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from PIL import Image

from ...files import refuse_foreign, whole_file
from ...processor.processor import Processor
from ..dataset.examples import Example
from .shown_example import pieces

_MARK = "<!-- rows to train on, shown by mlx-smolvlm -->"
_HEAD = """<!doctype html>
{mark}
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em }}
p {{ white-space: pre-wrap; overflow-wrap: anywhere }} b {{ font-weight: normal; background: #b7f0b1; color: #000 }}
i {{ font-style: normal; opacity: .5 }} img {{ margin: 0 4px 4px 0 }}
</style></head><body><h1>{title}</h1>
<p>Tokens on green are trained. Images are shown as the tiles that the model sees.</p>
"""
SHOWN_SIDE = 96  # pixels of a tile


class CheckPage:
    """Writes the page row by row, whole or not at all."""

    def __init__(self, target: Path, title: str, processor: Processor):
        """
        Args:
            target: the file; one that is there is replaced only if it is such a page.
            title: what the page is called.
            processor: that of the rows.
        """
        self._target, self._title, self._processor = target, title, processor
        self._opened = ExitStack()
        self._file: Any = None

    def __enter__(self) -> "CheckPage":
        with ExitStack() as opened:
            path = opened.enter_context(whole_file(self._target, _check))
            self._file = opened.enter_context(path.open("w", encoding="utf-8", errors="replace"))
            self._file.write(_HEAD.format(mark=_MARK, title=html.escape(self._title)))
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            self._file.write("</body></html>\n")
        self._opened.__exit__(*error)

    def add(self, example: Example) -> None:
        """Write a row. Raises RowError if its images cannot be read."""
        parts = []
        image_token = self._processor.config.image_token_id
        for is_trained, ids in pieces(example, image_token):
            is_image = ids[0] == image_token
            text = f"<image>x{len(ids)}" if is_image else self._processor.decode(ids, skip_special_tokens=False)
            tag = "b" if is_trained else "i" if is_image else "span"
            parts.append(f"<{tag}>{html.escape(text)}</{tag}>")
        images = "".join(f'<img alt="" src="{data_url(Image.fromarray(tile))}">' for tile in example.tiles())
        counts = f"{len(example.input_ids)} tokens, {int(example.trained.sum())} trained"
        self._file.write(f"<h2>{html.escape(example.name)}</h2>{images}<p>{''.join(parts)}</p><p><i>{counts}</i></p>\n")


def data_url(image: Image.Image, side: int = SHOWN_SIDE) -> str:
    """A small copy of an image, to be put into a page."""
    small = image.copy()
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _check(target: Path) -> None:
    refuse_foreign(target, lambda path: _MARK.encode() in path.read_bytes()[:200], "page of this command")
