"""The loop of a run: rows -> gradients -> steps, with the state kept so that it can go on."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

import mlx.core as mx

from ..media.prefetch import Prefetched
from .learning.batches import StepPlan
from .learning.forward import MicroBatch
from .learning.micro_batches import MicroBatches, Tiles
from .learning.optimization import Gradients, Optimization, gradients_of, with_measures
from .learning.step_memory import MemoryPlan
from .learning.trainable import Trainable
from .recipe import Recipe
from .reports.metrics_log import MetricsLog, Record
from .run_data import RunData
from .run_folder import RunFolder
from .validation import Validation, best_step, is_over, losses_of

_STEPS_PER_CLEANING = 16
_MICRO_BATCHES_AHEAD = 2
_ADVICE = "the learning rate may be too high, or the type too narrow (--dtype bfloat16 or float32)"


@dataclass(frozen=True)
class StepReport:
    """A step that is done.

    Attributes:
        step: its number, from 1.
        loss: the mean over the trained tokens; None if there were none.
        num_tokens: of all rows, of this process.
        seconds: that it took.
        measures: of pairs, see `preferences.py`.
    """

    step: int
    loss: float | None
    num_tokens: int
    seconds: float
    measures: Mapping[str, float]


class TrainingRun:
    """One run, from where it is to its end.

    Attributes:
        optimization: the optimizer, which knows how many steps are done.
        last_loss: on some rows of the last step, after it; None before, and where nothing is trained.
    """

    def __init__(
        self,
        trainable: Trainable,
        recipe: Recipe,
        data: RunData,
        batches: MicroBatches,
        plan: StepPlan,
        memory: MemoryPlan,
        folder: RunFolder | None,
        *,
        num_steps: int,
        validation: Validation | None = None,
        on_validated: Callable[[], None] = lambda: None,
        save_every: int,
        rank: int = 0,
        num_ranks: int = 1,
    ):
        """
        Args:
            trainable, recipe, data, batches, plan, memory: what is trained, how, and on what.
            folder: where states and metrics are kept; None for processes other than the first.
            num_steps: of the run.
            validation: of the first process; None without one.
            on_validated: called after each validation.
            save_every: steps between two states.
            rank, num_ranks: this process among those of `mlx.launch`.
        """
        self.optimization = Optimization(trainable, recipe, num_steps)
        self._trainable = trainable
        self._recipe = recipe
        self._data = data
        self._batches = batches
        self._losses = losses_of(recipe)
        self._plan = plan
        self._memory = memory
        self._folder = folder
        self._validation = validation
        self._log: MetricsLog | None = None
        self._lengths = data.lengths
        self._on_validated = on_validated
        self._save_every = save_every
        self._rank, self._num_ranks = rank, num_ranks
        self._saved = -1  # step of the newest state
        self.last_loss: float | None = None

    @property
    def warmup(self) -> int:
        """Steps in which the rate rises."""
        return self._recipe.warmup

    @property
    def largest_number(self) -> float:
        """In what is trained, without its sign."""
        numbers = [mx.abs(array).max() for array in self._trainable.parameters.values()]
        return mx.stack(numbers).max().item()  # type: ignore[return-value]

    def restore(self, step: int, arrays: dict[str, mx.array]) -> None:
        """Go on from a state. Raises ValueError if it is that of another run."""
        self.optimization.restore(step, arrays)
        self._saved = step

    def prepare(self, cancel: Event, on_begun: Callable[[int], None], on_encoded: Callable[[int], None]) -> None:
        """Read the weights that training needs; before that, encode the images of a run of one process.

        Args:
            cancel: ends it early.
            on_begun: told of how many rows images are to be encoded.
            on_encoded: told how many of these are done.

        Raises:
            ValueError: an image that has changed, or cannot be read.
        """
        if self._num_ranks == 1:
            rows = [row for row in self._rows_to_come() if self._data.examples[row].num_tiles]
            if rows:
                on_begun(len(rows))
            self._batches.encode(rows, cancel.is_set, on_encoded)
        if not cancel.is_set():
            model = self._trainable.model
            used: Any = model.language_model if self._trainable.encoder_is_frozen else model
            mx.eval(used.parameters())

    def _rows_to_come(self) -> list[int]:
        """The rows that are still to be trained, and held ones."""
        optimization, per_epoch = self.optimization, self._plan.steps_per_epoch
        end = min(optimization.num_steps, optimization.step + 2 * per_epoch)  # with all rows
        units = dict.fromkeys(unit for step in range(optimization.step, end) for unit in self._plan.rows(step))
        held = [] if self._validation is None else self._validation.rows
        return [row for unit in units for row in self._data.members(unit)] + held

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
        ahead = Prefetched(self._opened(optimization.step), _MICRO_BATCHES_AHEAD)
        if self._folder is not None:
            self._log = MetricsLog(self._folder.metrics, optimization.step)
        try:
            if not cancel.is_set():
                self._validate()
            while optimization.step < optimization.num_steps:
                if share_cancel(cancel.is_set() or self.has_converged):
                    break
                start = time.monotonic()
                rate = optimization.learning_rate
                units = self._plan.rows(optimization.step)
                gradients = gradients_of(
                    self._trainable,
                    self._micro_batches(optimization.step, ahead),
                    self._losses,
                    checkpoint=self._memory.checkpoint,
                    is_shared=self._num_ranks > 1,
                )
                self._check(gradients)
                optimization.update(gradients)
                seconds = time.monotonic() - start
                num_tokens = sum(self._lengths[unit] for unit in units)
                if self._log is not None:
                    self._log.add(self._metrics(gradients, rate, num_tokens, seconds))
                if optimization.step % self._save_every == 0:
                    self.save()
                if optimization.step % _STEPS_PER_CLEANING == 0:
                    mx.clear_cache()  # buffers of lengths that may not come again
                self._validate()
                yield StepReport(optimization.step, gradients.loss, num_tokens, seconds, gradients.measures)
            if optimization.step == optimization.num_steps:
                self._check_result()
        finally:
            ahead.close()
            self.save()

    @property
    def records(self) -> Sequence[Record]:
        """What the metrics say so far; empty in processes other than the first."""
        return self._log.records if self._log is not None else []

    @property
    def has_converged(self) -> bool:
        """Whether validation got no better for as long as the recipe has patience."""
        return is_over(self.records, self._recipe.patience)

    def _validate(self) -> None:
        """Look at held rows, if it is time to."""
        step, validation = self.optimization.step, self._validation
        if validation is None or self._log is None or self._folder is None:
            return
        if not validation.is_due(step, self.optimization.num_steps, self.records):
            return
        record = validation.record(step)
        if best_step([*self.records, record]) == step:  # kept first: a run that is killed between validates again
            self._folder.save_best(step, self._trainable.parameters)
        self._log.add(record)
        self._on_validated()

    def save(self) -> None:
        """Keep the state, if it is not kept already, and whole: a second Ctrl-C may end a step halfway."""
        if self._folder is not None and self.optimization.is_whole and self._saved != self.optimization.step > 0:
            self._folder.save(self.optimization.step, self.optimization.state())
            self._saved = self.optimization.step

    def _rows_of(self, step: int) -> Iterator[list[int]]:
        """The rows of this process in micro-batches."""
        for units in self._plan.batches(step, self._memory.max_tokens, self._rank, self._num_ranks):
            yield [row for unit in units for row in self._data.members(unit)]

    def _opened(self, first: int) -> Iterator[Tiles]:
        """The tiles of all micro-batches from a step on: cut in a thread while the step before is computed."""
        for step in range(first, self.optimization.num_steps):
            yield from map(self._batches.open, self._rows_of(step))

    def _micro_batches(self, step: int, ahead: Iterator[Tiles] | None = None) -> Iterator[MicroBatch]:
        """Those of this process."""
        for rows in self._rows_of(step):
            yield self._batches.of(rows, f"{self._recipe.seed} {step}", None if ahead is None else next(ahead))

    def _check(self, gradients: Gradients) -> None:
        if gradients.are_finite:
            return
        what = f"the loss is {gradients.loss}" if gradients.loss != gradients.loss else "the gradients are not finite"
        raise ValueError(f"step {self.optimization.step + 1}: {what}; {_ADVICE}")

    def _check_result(self) -> None:
        """Look at the loss once more: that of each step was measured before the step was taken."""
        batch = next((batch for batch in self._micro_batches(self.optimization.step - 1) if batch.num_losses), None)
        if batch is None:
            return
        losses, _ = with_measures(self._losses, self._trainable, batch)
        self.last_loss = losses.mean().item()  # type: ignore[assignment]
        if not math.isfinite(losses.sum().item()):  # type: ignore[arg-type]
            raise ValueError(f"after the last step the loss is not finite; {_ADVICE}")

    def _metrics(self, gradients: Gradients, rate: float, num_tokens: int, seconds: float) -> dict[str, Any]:
        return {
            "step": self.optimization.step,
            "epoch": self.optimization.step / self._plan.steps_per_epoch,
            "loss": gradients.loss,
            "learning_rate": rate,
            "gradient_norm": gradients.norm,
            **gradients.measures,
            "losses": gradients.num_losses,
            "tokens": num_tokens,
            "seconds": seconds,
            "peak_memory_bytes": mx.get_peak_memory(),
        }
