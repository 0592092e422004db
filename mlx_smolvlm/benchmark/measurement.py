"""What is measured, and how often."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

MEBIBYTE = 1024**2


@dataclass(frozen=True)
class Measurement:
    """One quantity over several runs; `note` says what it was measured on."""

    section: str
    name: str
    unit: str
    values: list[float]
    note: str = ""

    @property
    def median(self) -> float:
        """The middle of the runs: other work on the machine disturbs some of them."""
        return statistics.median(self.values)


@dataclass(frozen=True)
class PeerComparison:
    """One quantity in this package and in a peer, taken in turn on the same input.

    Attributes:
        own, theirs: one value for each round; none if the peer failed, then `note` says how.
        unit: "s" and "MB" are better when they are less, anything per second when it is more.
    """

    section: str
    name: str
    peer: str
    unit: str
    own: list[float]
    theirs: list[float]
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """Own over theirs, for each round."""
        return [own / theirs for own, theirs in zip(self.own, self.theirs, strict=True)] if self.theirs else []

    @property
    def ratio(self) -> float | None:
        """Median of the ratios; both programs of a round see the machine in the same mood."""
        return statistics.median(self.ratios) if self.theirs else None


def timed(function: Callable[[], object], runs: int) -> list[float]:
    """Seconds of each run, after one that does not count."""
    function()
    spent = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        spent.append(time.perf_counter() - start)
    return spent


def copy_bandwidth(runs: int, size_bytes: int = 256 * MEBIBYTE) -> list[float]:
    """GB/s at which the default device copies an array much larger than its caches; bytes read and written count.

    Every weight is read once per token, so this bounds the speed of decoding.
    """
    if mx.default_device() == mx.gpu:
        source = mx.zeros(size_bytes // 4, mx.float32)
        mx.eval(source)
        spent = timed(lambda: mx.eval(source + 1), runs)
    else:  # MLX copies with one scalar loop there
        here, there = np.zeros(size_bytes, np.uint8), np.ones(size_bytes, np.uint8)
        spent = timed(lambda: np.copyto(there, here), runs)
    return [2 * size_bytes / seconds / 1e9 for seconds in spent]


def reset_memory() -> int:
    """Reset MLX's count of peak memory; returns the bytes that are held now."""
    mx.clear_cache()
    mx.reset_peak_memory()
    return mx.get_active_memory()


def peak_over(base_bytes: int) -> float:
    """MB that MLX has held at most since `reset_memory`, beyond a base."""
    return (mx.get_peak_memory() - base_bytes) / 1e6
