"""The loop of a run: rows -> gradients -> steps, with the state kept so that it can go on."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

import mlx.core as mx
import numpy as np

from .batches import StepPlan
from .examples import Example
from .forward import MicroBatch
from .metrics_log import MetricsLog
from .optimization import Gradients, Optimization, gradients_of
from .recipe import Recipe
from .run_folder import RunFolder
from .step_memory import MemoryPlan
from .stored_features import StoredFeatures
from .trainable import Trainable

_STEPS_PER_CLEANING = 16


@dataclass(frozen=True)
class StepReport:
    """A step that is done.

    Attributes:
        step: its number, from 1.
        loss: the mean over the trained tokens; None if there were none.
        num_tokens: of all rows, of this process.
        seconds: that it took.
    """

    step: int
    loss: float | None
    num_tokens: int
    seconds: float


class TrainingRun:
    """One run, from where it is to its end.

    Attributes:
        optimization: the optimizer, which knows how many steps are done.
    """

    def __init__(
        self,
        trainable: Trainable,
        recipe: Recipe,
        examples: Sequence[Example],
        plan: StepPlan,
        memory: MemoryPlan,
        features: StoredFeatures | None,
        folder: RunFolder | None,
        *,
        num_steps: int,
        save_every: int,
        rank: int = 0,
        num_ranks: int = 1,
    ):
        """
        Args:
            trainable, recipe, examples, plan, memory: what is trained, how, and on what.
            features: of frozen encoders; None if the encoder or the connector is trained.
            folder: where states and metrics are kept; None for processes other than the first.
            num_steps: of the run.
            save_every: steps between two states.
            rank, num_ranks: this process among those of `mlx.launch`.
        """
        self.optimization = Optimization(trainable, recipe, num_steps)
        self._trainable = trainable
        self._recipe = recipe
        self._examples = examples
        self._plan = plan
        self._memory = memory
        self._features = features
        self._folder = folder
        self._save_every = save_every
        self._rank, self._num_ranks = rank, num_ranks
        self._saved = -1  # step of the newest state

    def restore(self, step: int, arrays: dict[str, mx.array]) -> None:
        """Go on from a state. Raises ValueError if it is that of another run."""
        self.optimization.restore(step, arrays)
        self._saved = step

    def steps(self, cancel: Event, share_cancel: Callable[[bool], bool]) -> Iterator[StepReport]:
        """Train until the end, or until `cancel` is set: then the state is kept.

        Args:
            cancel: ends the run after the step under way.
            share_cancel: tells whether any process is to end.

        Raises:
            ValueError: a loss or gradients that are not finite, or an image that has changed. The state before is kept.
            OSError: the state cannot be kept.
        """
        optimization = self.optimization
        log = MetricsLog(self._folder.metrics, optimization.step) if self._folder else None
        try:
            while optimization.step < optimization.num_steps:
                if share_cancel(cancel.is_set()):
                    break
                start = time.monotonic()
                rate = optimization.learning_rate
                rows = self._plan.rows(optimization.step)
                gradients = gradients_of(
                    self._trainable,
                    self._micro_batches(optimization.step),
                    checkpoint=self._memory.checkpoint,
                    is_shared=self._num_ranks > 1,
                )
                self._check(gradients)
                optimization.update(gradients)
                seconds = time.monotonic() - start
                num_tokens = sum(len(self._examples[row].input_ids) for row in rows)
                if log is not None:
                    log.add(self._metrics(gradients, rate, num_tokens, seconds))
                if optimization.step % self._save_every == 0:
                    self.save()
                if optimization.step % _STEPS_PER_CLEANING == 0:
                    mx.clear_cache()  # buffers of lengths that may not come again
                yield StepReport(optimization.step, gradients.loss, num_tokens, seconds)
        finally:
            self.save()

    def save(self) -> None:
        """Keep the state, if it is not kept already."""
        if self._folder is not None and self._saved != self.optimization.step > 0:
            self._folder.save(self.optimization.step, self.optimization.state())
            self._saved = self.optimization.step

    def _micro_batches(self, step: int) -> Iterator[MicroBatch]:
        """Those of this process: every so-manieth row, those of like length together."""
        lengths = [len(example.input_ids) for example in self._examples]
        rows = sorted(self._plan.rows(step), key=lambda row: (-lengths[row], row))[self._rank :: self._num_ranks]
        batch: list[int] = []
        num_tokens = 0
        for row in rows:
            if batch and num_tokens + lengths[row] > self._memory.max_tokens:
                yield self._micro_batch(step, batch)
                batch, num_tokens = [], 0
            batch.append(row)
            num_tokens += lengths[row]
        if batch:
            yield self._micro_batch(step, batch)

    def _micro_batch(self, step: int, rows: Sequence[int]) -> MicroBatch:
        examples = [self._examples[row] for row in rows]
        lengths = [len(example.input_ids) for example in examples]
        trained = np.concatenate([_predictable(example.trained) for example in examples])
        with_tiles = [(row, example) for row, example in zip(rows, examples, strict=True) if example.num_tiles]
        tiles = features = None
        if with_tiles and self._features is not None:
            features = mx.concatenate([self._features.of(row, example) for row, example in with_tiles])
        elif with_tiles:
            tiles = np.concatenate([example.tiles() for _, example in with_tiles])
        return MicroBatch(
            names=[f"{self._recipe.seed} {step} {row}" for row in rows],
            input_ids=np.concatenate([example.input_ids for example in examples]),
            lengths=lengths,
            predicted=np.flatnonzero(trained).astype(np.int32),
            tiles=tiles,
            tile_counts=[example.num_tiles for example in examples],
            features=features,
        )

    def _check(self, gradients: Gradients) -> None:
        if gradients.are_finite:
            return
        what = f"the loss is {gradients.loss}" if gradients.loss != gradients.loss else "the gradients are not finite"
        raise ValueError(
            f"step {self.optimization.step + 1}: {what}; the learning rate may be too high, or the type too narrow "
            "(--dtype bfloat16 or float32)"
        )

    def _metrics(self, gradients: Gradients, rate: float, num_tokens: int, seconds: float) -> dict[str, Any]:
        return {
            "step": self.optimization.step,
            "epoch": self.optimization.step / self._plan.steps_per_epoch,
            "loss": gradients.loss,
            "learning_rate": rate,
            "gradient_norm": gradients.norm,
            "trained_tokens": gradients.num_trained,
            "tokens": num_tokens,
            "seconds": seconds,
            "peak_memory_bytes": mx.get_peak_memory(),
        }


def _predictable(trained: np.ndarray) -> np.ndarray:
    """What of a row counts: its first token has none before it that could predict it."""
    counted = trained.copy()
    counted[:1] = False
    return counted
