"""Cases of which a few run always and the others with `--slow`."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def quick_and_slow(cases: Iterable[Any], quick: Collection[Any] | int) -> list[Any]:
    """Parameters for pytest: the `quick` cases, or each `quick`-th of them, run always; the others are marked slow."""
    return [
        case if (number % quick == 0 if isinstance(quick, int) else case in quick) else slow(case)
        for number, case in enumerate(cases)
    ]


def slow(case: Any) -> Any:
    """A parameter that is tried with `--slow` alone; a tuple stands for several."""
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
