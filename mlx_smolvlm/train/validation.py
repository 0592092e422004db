"""Validation: the loss on held rows, answers to some of them, which step was best, and when to stop."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import mlx.core as mx
import numpy as np

from ..api.generation import generate_text
from ..options import MediaOptions
from ..processor.processor import Processor
from .learning.batches import by_tokens
from .learning.forward import token_losses
from .learning.micro_batches import MicroBatches
from .learning.optimization import BatchLosses, with_measures
from .learning.preferences import MEASURES, measured_pair_losses
from .learning.step_memory import MemoryPlan
from .learning.trainable import Trainable
from .recipe import Recipe
from .reports.held_questions import HeldQuestion, held_question, shown_images
from .reports.metrics_log import Record
from .reports.training_report import HeldAnswer
from .run_data import RunData

LOSS = "validation_loss"
NUM_SAMPLES = 4
_MAX_TOKENS = 256  # of an answer; at most twice those of the row's own, and some


class Validation:
    """Held rows, looked at every so many steps."""

    def __init__(
        self,
        trainable: Trainable,
        recipe: Recipe,
        processor: Processor,
        data: RunData,
        batches: MicroBatches,
        memory: MemoryPlan,
        num_steps: int,
        media_options: MediaOptions,
    ):
        """
        Args:
            trainable, recipe, processor: what is trained, and how.
            data: with held rows.
            batches: what makes micro-batches of them.
            memory: how many tokens at a time.
            num_steps: of the run.
            media_options: how images and videos are read.
        """
        self._every = recipe.validate_every or max(1, num_steps // 10)
        self._trainable = trainable
        self._processor = processor
        self._losses = losses_of(recipe)
        self._is_preference = recipe.preference
        self._batches = batches
        self._media_options = media_options
        units = range(data.num_trained, data.num_trained + data.num_held)
        by_length = sorted(units, key=lambda unit: -data.lengths[unit])
        self._units = by_tokens(by_length, data.lengths, memory.max_tokens)
        self._members = data.members
        shown = [data.members(unit)[0] for unit in units[:: -(-len(units) // NUM_SAMPLES)]]
        self._questions = [held_question(data.rows[row], data.examples[row]) for row in shown]
        self._images = [shown_images(data.examples[row]) for row in shown]

    @property
    def rows(self) -> list[int]:
        """The numbers of the held rows."""
        return [row for units in self._units for unit in units for row in self._members(unit)]

    def is_due(self, step: int, num_steps: int, records: Sequence[Record]) -> bool:
        """Whether to validate after a step: before the first, every so many, and after the last; each time once."""
        is_time = step % self._every == 0 or step == num_steps
        return is_time and not any(record["step"] == step and LOSS in record for record in records)

    def record(self, step: int) -> Record:
        """What `metrics.jsonl` holds of a validation after so many steps: the loss, and answers."""
        with _without_dropout(self._trainable):
            loss_sum, sums, count = 0.0, np.zeros(len(MEASURES)), 0
            for units in self._units:
                batch = self._batches.of([row for unit in units for row in self._members(unit)], "")
                losses, measures = with_measures(self._losses, self._trainable, batch)
                loss_sum += float(losses.sum())
                sums += np.array(measures)
                count += batch.num_losses
            with self._batches.encoder():
                answers = [self._answer(question) for question in self._questions]
        mx.clear_cache()
        measured = {f"validation_{name}": value / count for name, value in zip(MEASURES, sums.tolist(), strict=True)}
        return {"step": step, LOSS: loss_sum / count} | (measured if self._is_preference else {}) | {"answers": answers}

    def held_answers(self, records: Sequence[Record]) -> list[HeldAnswer]:
        """The answers of all validations, by question."""
        validations = [record for record in records if LOSS in record]
        return [
            HeldAnswer(
                question.row,
                question.question,
                question.expected,
                images,
                [(record["step"], record["answers"][number]) for record in validations],
            )
            for number, (question, images) in enumerate(zip(self._questions, self._images, strict=True))
        ]

    def _answer(self, question: HeldQuestion) -> str:
        return generate_text(
            self._trainable.model,
            self._processor,
            question.prompt,
            images=question.images,
            media_options=self._media_options,
            max_tokens=min(_MAX_TOKENS, 2 * question.num_expected + 16),
        )


def losses_of(recipe: Recipe) -> BatchLosses:
    """The losses that a recipe makes less."""
    return partial(measured_pair_losses, beta=recipe.beta) if recipe.preference else token_losses


def best_step(records: Sequence[Record]) -> int | None:
    """The step after which the loss on held rows was least, the first if there are several; None without any."""
    losses = [(record[LOSS], record["step"]) for record in records if LOSS in record]
    return int(min(losses)[1]) if losses else None


def is_over(records: Sequence[Record], patience: int | None) -> bool:
    """Whether so many validations in a row, to the last one, were no better than the best before them."""
    best = best_step(records)
    if patience is None or best is None:
        return False
    later = [record for record in records if LOSS in record and record["step"] > best]
    return len(later) >= patience


@contextmanager
def _without_dropout(trainable: Trainable) -> Iterator[None]:
    rate, trainable.noise.rate = trainable.noise.rate, 0.0
    try:
        yield
    finally:
        trainable.noise.rate = rate
