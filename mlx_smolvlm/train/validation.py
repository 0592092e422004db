"""Validation: the loss on held rows, answers to some of them, which step was best, and when to stop."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np

from ..api.generation import generate_text
from ..processor.processor import Processor
from .examples import Example
from .forward import MicroBatch, token_losses
from .held_questions import held_question, shown_images
from .metrics_log import Record
from .trainable import Trainable
from .training_report import HeldAnswer
from .training_row import TrainingRow

LOSS = "validation_loss"
NUM_SAMPLES = 4
_MAX_TOKENS = 128  # of an answer


class Validation:
    """Held rows, looked at every so many steps."""

    def __init__(
        self,
        trainable: Trainable,
        processor: Processor,
        rows: Sequence[TrainingRow],
        examples: Sequence[Example],
        batches: Callable[[], Iterable[MicroBatch]],
        every: int,
    ):
        """
        Args:
            trainable, processor: the model.
            rows, examples: held rows, as they were read and as the model takes them.
            batches: the examples as micro-batches.
            every: steps between two validations.
        """
        self.every = every
        self._trainable = trainable
        self._processor = processor
        self._batches = batches
        places = range(0, len(examples), -(-len(examples) // NUM_SAMPLES))
        by_name = {row.name: row for row in rows}
        self._questions = [held_question(by_name[examples[place].name]) for place in places]
        self._images = [shown_images(examples[place]) for place in places]

    def record(self, step: int) -> Record:
        """What `metrics.jsonl` holds of a validation after so many steps: the loss, and answers."""
        with _without_dropout(self._trainable):
            loss_sum, count = 0.0, 0
            for batch in self._batches():
                losses = token_losses(self._trainable, batch)
                loss_sum += float(np.asarray(losses.sum()))
                count += len(batch.predicted)
            answers = [self._answer(question.prompt, question.images) for question in self._questions]
        mx.clear_cache()
        return {"step": step, LOSS: loss_sum / count, "answers": answers}

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

    def _answer(self, prompt: Any, images: list[Any]) -> str:
        return generate_text(self._trainable.model, self._processor, prompt, images=images, max_tokens=_MAX_TOKENS)


def best_step(records: Sequence[Record]) -> int | None:
    """The step after which the loss on held rows was least, the first if there are several; None without any."""
    losses = [(record[LOSS], record["step"]) for record in records if LOSS in record]
    return min(losses)[1] if losses else None


def is_over(records: Sequence[Record], patience: int | None) -> bool:
    """Whether so many validations in a row, to the last one, were no better than the best before them."""
    best = best_step(records)
    if patience is None or best is None:
        return False
    return len([1 for record in records if LOSS in record and record["step"] > best]) >= patience


def held_out(num_rows: int, share: float, lot: Callable[[int], bytes]) -> list[int]:
    """Which rows are held, in order: a share of them, at least one, those with the least lots."""
    count = max(1, round(num_rows * share))
    return sorted(sorted(range(num_rows), key=lot)[:count])


@contextmanager
def _without_dropout(trainable: Trainable) -> Iterator[None]:
    rate, trainable.noise.rate = trainable.noise.rate, 0.0
    try:
        yield
    finally:
        trainable.noise.rate = rate
