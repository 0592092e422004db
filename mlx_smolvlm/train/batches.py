"""Which rows a step trains.

The plan depends on the seed, the rows and the step's number alone, so a run goes on anywhere by its number of steps. A
step has `rows_per_step` rows however they are cut into batches, so that accumulating gradients changes nothing.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

_STEPS_PER_BUCKET = 32  # rows of so many steps are sorted by length; the steps are then shuffled again


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

    def batches(self, step: int, batch_size: int, max_tokens: int | None = None) -> list[list[int]]:
        """The rows of a step in batches, those of like length together.

        Args:
            step: as in `rows`.
            batch_size: most rows of a batch.
            max_tokens: most tokens of a batch; a longer row is alone. None for any number.
        """
        batches: list[list[int]] = []
        num_tokens = 0  # of the last batch
        for row in sorted(self.rows(step), key=lambda row: (-self._lengths[row], row)):
            num_tokens += self._lengths[row]
            if batches and len(batches[-1]) < batch_size and (max_tokens is None or num_tokens <= max_tokens):
                batches[-1].append(row)
            else:
                batches.append([row])
                num_tokens = self._lengths[row]
        return batches

    def _planned(self, epoch: int) -> list[list[int]]:
        rows = list(range(len(self._lengths)))
        if not self._shuffle:
            return self._cut(rows)
        rows.sort(key=lambda row: self._lot("row", epoch, row))
        steps: list[list[int]] = []
        bucket = self._rows_per_step * _STEPS_PER_BUCKET
        for start in range(0, len(rows), bucket):
            steps += self._cut(sorted(rows[start : start + bucket], key=lambda row: self._lengths[row]))
        order = sorted(range(len(steps)), key=lambda step: self._lot("step", epoch, step))
        return [steps[number] for number in order]

    def _cut(self, rows: list[int]) -> list[list[int]]:
        return [rows[start : start + self._rows_per_step] for start in range(0, len(rows), self._rows_per_step)]

    def _lot(self, kind: str, epoch: int, number: int) -> bytes:
        """A random number that is the same with every version of every library."""
        return blake2b(f"{kind} {self._seed} {epoch} {number}".encode(), digest_size=16).digest()
