"""Which mini suite: its rows, seed and categories. Nothing is drawn here."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...options import quoted

MINI = "mini"
DIFFICULTIES = {1: "1 easy", 2: "2 medium", 3: "3 hard"}  # as rows have it by `difficulty` and by `split`
MAX_ROWS = 100_000
BASIC = "basic"  # the categories that the demo model knows
BASIC_CATEGORIES = ("color", "shape", "place", "description", "counting", "number", "difference", "motion")
CATEGORIES = (*BASIC_CATEGORIES, "spatial", "sequence", "chart", "document", "receipt", "form", "sign")


@dataclass(frozen=True)
class MiniSuite:
    """Which mini suite.

    Attributes:
        num_rows: questions.
        seed: another one makes other images.
        categories: which of CATEGORIES, in the order in which rows go through them.

    Raises:
        ValueError: a number of rows or a category that there is not.
    """

    num_rows: int = 210
    seed: int = 0
    categories: Sequence[str] = CATEGORIES

    def __post_init__(self) -> None:
        if not 1 <= self.num_rows <= MAX_ROWS:
            raise ValueError(f"--mini-rows is {self.num_rows}, expected 1 to {MAX_ROWS}")
        known = ", ".join((*CATEGORIES, f"or {BASIC}"))
        if unknown := [name for name in self.categories if name not in CATEGORIES]:
            raise ValueError(f"--mini-categories has {quoted(unknown[0])}, expected {known}")
        if not self.categories or len(set(self.categories)) < len(self.categories):
            raise ValueError(f"--mini-categories names a category twice, or none; expected {known}")

    @property
    def name(self) -> str:
        """What tells it from other mini suites."""
        of = "" if tuple(self.categories) == CATEGORIES else f"-{'-'.join(self.categories)}"
        return f"{MINI}-{self.num_rows}-{self.seed}{of}"


def read_categories(text: str | None) -> tuple[str, ...]:
    """Category names, comma-separated, BASIC among them for those that the demo model knows; None for all."""
    if text is None:
        return CATEGORIES
    names = [name.strip() for name in text.split(",") if name.strip()]
    return tuple(name for given in names for name in (BASIC_CATEGORIES if given == BASIC else (given,)))
