"""Which rows a step trains.

The plan depends on the seed, the rows and the step's number alone, so a run goes on anywhere by its number of steps. A
step has `rows_per_step` rows however they are cut into batches, so that accumulating gradients changes nothing. Rows
are computed without padding, so steps need not be sorted by length, which would fill them with rows of one kind.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b


class StepPlan:
    """The rows of each step.

    Attributes:
        steps_per_epoch: in how many steps all rows are seen once; the last may have fewer rows.
    """

    def __init__(self, lengths: Sequence[int], rows_per_step: int, *, seed: int = 0, shuffle: bool = True):
        """
        Args:
            lengths: tokens of each row.
            rows_per_step: rows of a batch times batches that are accumulated.
            seed: of the order.
            shuffle: False keeps the order of the rows.
        """
        self._lengths = list(lengths)
        self._rows_per_step = rows_per_step
        self._seed = seed
        self._shuffle = shuffle
        self.steps_per_epoch = -(-len(self._lengths) // rows_per_step)
        self._epoch = lru_cache(maxsize=2)(self._planned)

    def rows(self, step: int) -> list[int]:
        """The numbers of the rows of a step, counted from 0; after the last step of an epoch comes the next epoch."""
        epoch, number = divmod(step, self.steps_per_epoch)
        return self._epoch(epoch)[number]

    def batches(self, step: int, max_tokens: int, rank: int = 0, num_ranks: int = 1) -> list[list[int]]:
        """The rows of a step in micro-batches, those of like length together.

        Args:
            step: as in `rows`.
            max_tokens: most tokens of a micro-batch; a longer row is alone.
            rank, num_ranks: gives those of one of several processes, which share the step.
        """
        rows = sorted(self.rows(step), key=lambda row: (-self._lengths[row], row))[rank::num_ranks]
        return by_tokens(rows, self._lengths, max_tokens)

    def _planned(self, epoch: int) -> list[list[int]]:
        rows = list(range(len(self._lengths)))
        if self._shuffle:
            rows.sort(key=lambda row: self._lot(epoch, row))
        return [rows[start : start + self._rows_per_step] for start in range(0, len(rows), self._rows_per_step)]

    def _lot(self, epoch: int, row: int) -> bytes:
        """A random number that is the same with every version of every library."""
        return blake2b(f"{self._seed} {epoch} {row}".encode(), digest_size=16).digest()


def by_tokens(rows: Sequence[int], lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Rows in their order, together up to so many tokens."""
    batches: list[list[int]] = []
    num_tokens = 0  # of the last one
    for row in rows:
        num_tokens += lengths[row]
        if batches and num_tokens <= max_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
            num_tokens = lengths[row]
    return batches
