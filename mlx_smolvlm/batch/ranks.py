"""This process among those that `mlx.launch` has started, on one machine or several."""

from collections.abc import Iterable

import mlx.core as mx
import numpy as np


class Ranks:
    """A group of processes; one alone where there was no `mlx.launch`.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
    """

    def __init__(self) -> None:
        self._group = mx.distributed.init()
        self.rank = self._group.rank()
        self.size = self._group.size()

    def share(self, data: bytes) -> list[bytes]:
        """What each process gave, by rank; all call this, and wait for each other.

        Raises:
            OSError: another process has ended.
        """
        if self.size == 1:
            return [data]
        try:
            sizes = self._gather(np.array([[len(data)]], np.int32))[:, 0]
            padded = np.zeros((1, max(sizes.max(), 1)), np.uint8)
            padded[0, : len(data)] = np.frombuffer(data, np.uint8)
            rows = self._gather(padded)
        except RuntimeError as error:  # the ring notices within moments that a connection is closed
            raise OSError(
                f"another process has ended ({error}); what each has done is kept: run the same command again, with "
                "any number of processes, to do the rest"
            ) from None
        return [row[:size].tobytes() for row, size in zip(rows, sizes, strict=True)]

    def gather(self, parts: Iterable[bytes]) -> Iterable[bytes]:
        """The parts of all processes, a few at a time. Raises OSError as `share` does."""
        own = iter(parts)
        while any(shared := self.share(next(own, b""))):
            yield from filter(None, shared)

    def _gather(self, array: np.ndarray) -> np.ndarray:
        """(1, n) of each process -> (size, n)."""
        return np.array(mx.distributed.all_gather(mx.array(array), group=self._group, stream=mx.cpu))
