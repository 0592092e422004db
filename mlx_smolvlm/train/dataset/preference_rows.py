"""Rows of preferences: a prompt with an answer that is chosen and one that is rejected, as TRL's DPO takes them."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from ...options import quoted
from .row_forms import read_row
from .row_media import RowMedia
from .training_row import TrainingRow

ANSWERS = ("chosen", "rejected")


@dataclass(frozen=True)
class PreferenceRow:
    """Two conversations that differ in their answer.

    Attributes:
        name: file and line, as errors call it.
        chosen, rejected: the same prompt with either answer, and names of their own; only the answer counts.
    """

    name: str
    chosen: TrainingRow
    rejected: TrainingRow


def read_preference(fields: dict[str, Any], name: str, media: RowMedia, ignored: Collection[str] = ()) -> PreferenceRow:
    """The two conversations of a row.

    Args:
        fields: `prompt` or `question`, `chosen`, `rejected` and images, as texts or lists of messages; or `chosen` and
            `rejected` as whole conversations, whose common beginning is the prompt.
        name, media, ignored: as in `read_row`.

    Raises:
        ValueError: fields that are missing, unknown or contradictory, or answers that do not differ.
    """
    fields = {key: value for key, value in fields.items() if value is not None and key not in ignored}
    for what in ANSWERS:
        if what not in fields:
            raise ValueError(f"has no {what}; a row of preferences has chosen and rejected")
    chosen, rejected = (fields.pop(what) for what in ANSWERS)
    if chosen == rejected:
        raise ValueError(f"chosen and rejected are the same, {quoted(chosen)}; there is nothing to prefer")
    field = "answer" if "question" in fields else "completion" if "prompt" in fields else "messages"
    if field in fields:
        raise ValueError(f"has {field} beside chosen and rejected, which take its place; leave it out")
    rows = []
    for what, answer in zip(ANSWERS, (chosen, rejected), strict=True):
        try:
            rows.append(read_row({**fields, field: answer}, name, media))
        except ValueError as error:
            raise ValueError(f"with its {what} answer: {error}") from None
    if field == "messages":
        shared = _num_shared(rows[0].messages, rows[1].messages)
        if not shared:
            raise ValueError("chosen and rejected have no common beginning; give the prompt as a field of its own")
        rows = [replace(row, first=shared) for row in rows]
    return PreferenceRow(name, *(replace(row, name=f"{name} {what}") for row, what in zip(rows, ANSWERS, strict=True)))


def _num_shared(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> int:
    """How many messages both begin with."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count
