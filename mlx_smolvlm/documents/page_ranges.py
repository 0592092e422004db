"""Which pages of each document are read: `3-7,10`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..options import is_whole, quoted

_RANGE = re.compile(r"(\d{1,9})(-(\d{1,9})?)?", re.ASCII)


@dataclass(frozen=True)
class PageRanges:
    """Pages, counted from 1.

    Attributes:
        text: as they were given, for people.
        ranges: first and last page of each range; the last is None for that of the document.
    """

    text: str
    ranges: tuple[tuple[int, int | None], ...]

    def numbers(self, name: str, num_pages: int) -> tuple[int, ...]:
        """The chosen pages of a document, in its order, each once.

        Raises:
            ValueError: it has no such page.
        """
        chosen: set[int] = set()
        for first, last in self.ranges:
            missing = first if first > num_pages else last
            if missing is not None and missing > num_pages:
                pages = f"{num_pages} page{'' if num_pages == 1 else 's'}"
                raise ValueError(f"{name}: there is no page {missing}, which {self.text!r} asks for: it has {pages}")
            chosen.update(range(first, (last or num_pages) + 1))
        return tuple(sorted(chosen))


def page_ranges(pages: str | Sequence[int]) -> PageRanges:
    """Pages as people write them, `3-7,10` or `5-` (to the end), or a list of their numbers.

    Raises:
        ValueError: what is neither.
    """
    if not isinstance(pages, str):
        if not isinstance(pages, Sequence) or not pages or not all(is_whole(number, 1) for number in pages):
            raise ValueError(f"pages is {quoted(pages)}, expected page numbers from 1, such as '3-7,10' or [3, 10]")
        return PageRanges(",".join(map(str, pages)), tuple((int(number), int(number)) for number in pages))
    ranges: list[tuple[int, int | None]] = []
    for part in pages.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"pages is {quoted(pages)}, expected numbers and ranges of pages, such as 3-7,10 or 5-")
        first = int(match[1])
        last = first if match[2] is None else None if match[3] is None else int(match[3])
        if first < 1 or (last is not None and last < first):
            raise ValueError(f"pages is {quoted(pages)}: {part.strip()} is no range; pages count from 1, upwards")
        ranges.append((first, last))
    return PageRanges(pages, tuple(ranges))
