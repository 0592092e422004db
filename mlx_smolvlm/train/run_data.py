"""The rows of a run: those that are trained, and those that are held for validation."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from ..command_line.arguments import media_options
from ..command_line.progress import counted
from ..processor.processor import Processor
from .dataset.data_arguments import media_options_of, rows_of
from .dataset.examples import Example
from .dataset.training_row import TrainingRow
from .identity import data_digest
from .recipe import Recipe
from .reports.check import LeftOutRows, examples_of


@dataclass(frozen=True)
class RunData:
    """What a run reads.

    Attributes:
        examples: of units that are trained, then of held ones. A unit is a row, or a chosen and a rejected answer.
        rows: those of the examples.
        rows_per_unit: 1, or 2 for pairs.
        num_trained, num_held: units.
        digest: of all of it.
    """

    examples: Sequence[Example]
    rows: Sequence[TrainingRow]
    rows_per_unit: int
    num_trained: int
    num_held: int
    digest: str

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each unit, those that are trained first."""
        units = range(self.num_trained + self.num_held)
        return [sum(len(self.examples[row].input_ids) for row in self.members(unit)) for unit in units]

    def members(self, unit: int) -> list[int]:
        """The numbers of the examples of a unit."""
        return list(range(unit * self.rows_per_unit, (unit + 1) * self.rows_per_unit))


def read_data(arguments: argparse.Namespace, recipe: Recipe, processor: Processor) -> RunData:
    """Read the rows that the arguments name.

    Raises:
        FileNotFoundError, ValueError, ImportError: what is wrong with files or rows, or too few of them.
    """
    units = _units(arguments, arguments.data, processor, recipe.preference)
    held: list[list[tuple[TrainingRow, Example]]] = []
    if recipe.validation is not None:
        held = _units(arguments, recipe.validation, processor, recipe.preference)
    elif recipe.validation_share is not None:
        numbers = held_out(len(units), recipe.validation_share, recipe.seed)
        if len(numbers) == len(units):
            raise ValueError(
                f"--validation-share {recipe.validation_share:g} leaves none of {counted(len(units), 'row')} to train"
            )
        held = [units[number] for number in numbers]
        units = [unit for number, unit in enumerate(units) if number not in set(numbers)]
    pairs = [pair for unit in (*units, *held) for pair in unit]
    rows, examples = [row for row, _ in pairs], [example for _, example in pairs]
    digest = data_digest(examples, rows, media_options(arguments))
    return RunData(examples, rows, 2 if recipe.preference else 1, len(units), len(held), digest)


def held_out(num_units: int, share: float, seed: int) -> list[int]:
    """Which of the rows are held, in order: a share of them, at least one, chosen by the seed."""

    def lot(number: int) -> bytes:
        return blake2b(f"held {seed} {number}".encode(), digest_size=16).digest()

    return sorted(sorted(range(num_units), key=lot)[: max(1, round(num_units * share))])


def _units(
    arguments: argparse.Namespace, path: str, processor: Processor, are_pairs: bool
) -> list[list[tuple[TrainingRow, Example]]]:
    """The rows of a file that are used, one by one or by two."""
    left_out = LeftOutRows()
    rows = rows_of(arguments, path, left_out)
    is_main = path == arguments.data  # held rows need not have what the options are for
    options = media_options_of(arguments, rows) if is_main else media_options(arguments)
    examples = {example.name: example for example in examples_of(arguments, processor, rows, options, left_out)}
    left_out.say_count()
    step = 2 if are_pairs else 1
    grouped = [rows[start : start + step] for start in range(0, len(rows), step)]
    units = [
        [(row, examples[row.name]) for row in unit] for unit in grouped if all(row.name in examples for row in unit)
    ]
    if not units:
        raise ValueError(f"{path}: no row is left to use")
    if not any(example.trained[1:].any() for unit in units for _, example in unit):
        raise ValueError(f"{path}: no token of any row is trained")
    return units
