"""Confidence intervals of a score, and the test of two runs on the same rows."""

import math
from collections.abc import Sequence

import numpy as np

Z_95 = 1.959963984540054  # of the normal distribution, for 95 %
_RESAMPLES = 2000
_BLOCK = 2**22  # numbers drawn at a time


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
    tail = sum(math.comb(count, hits) for hits in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**count))
