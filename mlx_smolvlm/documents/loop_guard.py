"""Tells when a model repeats itself on a page: the same elements over and over, in the same place or marching on.

The rule is docling's (docling/models/utils/generation_utils.py, `DocTagsRepetitionStopper`): three elements in a row
with the same tag and text whose boxes are equal or regularly spaced. A table is one element, so its rows may be equal.
Loops of several elements are found, too, and empty elements in a row, such as the images of a gallery, are no loop.
"""

import re
from collections import deque
from itertools import pairwise
from typing import NamedTuple

LEAST_REPEATS = 3
MAX_PERIOD = 6  # elements that a loop may go through
_SPACING = 0.2  # regular spacing may differ by this share, as in docling
_MAX_TAG_CHARS = 40
_MAX_ELEMENT_CHARS = 8000  # of an element that is looked for; longer ones count as no repetition
_END_TAG = re.compile(r"</([a-z0-9_]+)>")
_BOX = re.compile(r"<[a-z0-9_]+>\s*((?:<loc_\d{1,4}>){4})")
_PLACE = re.compile(r"\d+")

_Box = tuple[int, ...]


class _Element(NamedTuple):
    before: str
    tag: str
    text: str
    box: _Box


class LoopGuard:
    """Watches the text of one page while it is made."""

    def __init__(self) -> None:
        self._text = ""  # what is behind the last element
        self._searched = 0  # characters of it in which there is no further end tag
        self._last: deque[_Element] = deque(maxlen=LEAST_REPEATS * MAX_PERIOD)

    def add(self, text: str) -> bool:
        """More text; returns whether the model goes in a loop."""
        self._text += text
        while (end := _END_TAG.search(self._text, self._searched)) is not None:
            self._searched = end.end()
            start = self._text.rfind(f"<{end[1]}>", 0, end.start())
            box = _BOX.match(self._text, max(start, 0))
            if start < 0 or box is None or "<loc_" in (inner := self._text[box.end() : end.start()]):
                continue  # no element with a place of its own, such as a list
            places = tuple(map(int, _PLACE.findall(box[1])))
            self._last.append(_Element(self._text[:start].strip(), end[1], inner.strip(), places))
            self._text, self._searched = self._text[end.end() :], 0
            if self._is_loop():
                return True
        if len(self._text) > 2 * _MAX_ELEMENT_CHARS:
            self._text = self._text[-_MAX_ELEMENT_CHARS:]
        self._searched = max(0, len(self._text) - _MAX_TAG_CHARS)
        return False

    def _is_loop(self) -> bool:
        for period in range(1, MAX_PERIOD + 1):
            tail = self._tail(period)
            if tail and tail[:-period] == tail[period:]:
                return True
        tail = self._tail(1)
        if not tail or not tail[0].text or len({element._replace(box=()) for element in tail}) > 1:
            return False
        return _march([element.box for element in tail])

    def _tail(self, period: int) -> "list[_Element]":
        """The last elements, if there are enough for a loop of this period; what stands before it does not count."""
        tail = list(self._last)[-LEAST_REPEATS * period :]
        if len(tail) < LEAST_REPEATS * period:
            return []
        return [tail[0]._replace(before=tail[period].before), *tail[1:]]


def _march(boxes: list[_Box]) -> bool:
    """Whether boxes go down or to the right by equal steps, with a side that stays."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    is_column = len(set(lefts)) == 1 or len(set(rights)) == 1
    is_row = len(set(tops)) == 1 or len(set(bottoms)) == 1
    return (is_column and _is_regular(tops)) or (is_row and _is_regular(lefts))


def _is_regular(places: tuple[int, ...]) -> bool:
    steps = [after - before for before, after in pairwise(places)]
    mean = sum(steps) / len(steps)
    return min(steps) > 0 and all(abs(step - mean) <= _SPACING * mean for step in steps)
