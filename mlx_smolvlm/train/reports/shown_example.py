"""A row to train on as people and programs see it."""

from collections.abc import Iterator
from itertools import groupby

from ...media.urls import printable
from ...processor.processor import Processor
from ..dataset.examples import Example

_GREEN, _PLAIN = "\x1b[30;42m", "\x1b[0m"
_MOST_SHOWN = 100_000  # characters of a piece


def as_record(example: Example) -> dict[str, object]:
    """An example as an object of JSON."""
    return {
        "row": example.name,
        "input_ids": example.input_ids.tolist(),
        "trained": example.trained.astype(int).tolist(),
        "num_tiles": example.num_tiles,
    }


def shown(example: Example, processor: Processor, is_coloured: bool) -> str:
    """An example for people: its text and its ids, trained ones in green, or in double brackets without colours."""
    texts, ids = [], []
    for is_trained, piece in pieces(example, processor.config.image_token_id):
        repeated, count = piece[0], len(piece)
        is_image = repeated == processor.config.image_token_id
        text = f"<image>x{count}" if is_image else processor.decode(piece, skip_special_tokens=False)
        number = f"{repeated}x{count}" if is_image else " ".join(map(str, piece))
        before, after = ((_GREEN, _PLAIN) if is_coloured else ("[[", "]]")) if is_trained else ("", "")
        texts.append(f"{before}{printable(text, _MOST_SHOWN)}{after}")
        ids.append(f"{before}{number}{after}")
    counts = f"{len(example.input_ids)} tokens, {int(example.trained.sum())} trained, {example.num_tiles} tiles"
    return f"{example.name}: {counts}\n  {''.join(texts)}\n  {' '.join(ids)}\n"


def pieces(example: Example, image_token_id: int) -> Iterator[tuple[bool, list[int]]]:
    """Runs of tokens that are trained or not, and those of image tokens apart: (is trained, ids)."""
    tokens = zip(example.trained.tolist(), example.input_ids.tolist(), strict=True)
    for (is_trained, _), run in groupby(tokens, lambda token: (token[0], token[1] == image_token_id)):
        yield is_trained, [token_id for _, token_id in run]
