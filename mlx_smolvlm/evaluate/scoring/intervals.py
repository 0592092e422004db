"""Confidence intervals of a score, the test of two runs on the same rows, and rows by category."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

Z_95 = 1.959963984540054  # of the normal distribution, for 95 %
_RESAMPLES = 2000
_BLOCK = 2**22  # numbers drawn at a time
_Item = TypeVar("_Item")
_Key = TypeVar("_Key")


def interval(scores: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of scores of 0 to 1: Wilson's where all are 0 or 1, otherwise by resampling.

    Resampling draws with a fixed seed, so that the same scores have the same interval.
    """
    if not scores:
        return 0.0, 1.0
    if all(score in (0, 1) for score in scores):
        return wilson(sum(map(int, scores)), len(scores))
    values, generator = np.array(scores), np.random.default_rng(0)
    means: list[float] = []
    while len(means) < _RESAMPLES:
        count = min(_RESAMPLES - len(means), max(1, _BLOCK // len(values)))
        means += values[generator.integers(0, len(values), (count, len(values)))].mean(axis=1).tolist()
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def grouped(items: Iterable[_Item], key: Callable[[_Item], _Key]) -> dict[_Key, list[_Item]]:
    """Items by their key, in their order; keys in the order in which they come."""
    groups: dict[_Key, list[_Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, `hits` of `count`."""
    share, z_squared = hits / count, Z_95**2
    middle = share + z_squared / (2 * count)
    half = Z_95 * math.sqrt(share * (1 - share) / count + z_squared / (4 * count**2))
    scale = 1 + z_squared / count
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def mcnemar(first_only: int, second_only: int) -> float:
    """McNemar's exact test, two-sided: how likely a split at least as uneven is if both are equally good.

    Args:
        first_only, second_only: rows that only one of the two has right.
    """
    count, fewer = first_only + second_only, min(first_only, second_only)
    tail = ways = 1  # of `hits` among `count`
    for hits in range(fewer):
        ways = ways * (count - hits) // (hits + 1)
        tail += ways
    return min(1.0, float(2 * tail / 2**count))
