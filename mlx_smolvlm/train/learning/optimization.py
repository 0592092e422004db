"""Optimizer steps: gradients of an effective batch, summed over micro-batches and processes, and AdamW."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import mlx.core as mx
from mlx.optimizers import AdamW, clip_grad_norm

from ...model.layers.streams import each_side_by_side
from ..recipe import Recipe, learning_rate_factor
from .batch_parts import parts_of
from .blas_threads import one_blas_thread
from .forward import MicroBatch, token_losses
from .preferences import MEASURES
from .targets import CONNECTOR, TEXT, VISION, part_of_path
from .trainable import Trainable

_NAMES = {VISION: "vision", CONNECTOR: "connector"}
Arrays = dict[str, mx.array]
BatchLosses = Callable[[Trainable, MicroBatch, bool], mx.array | tuple[mx.array, mx.array]]
"""Model, micro-batch, whether to checkpoint -> (num_losses,) float32; for pairs, perhaps with sums of `MEASURES`."""


@dataclass(frozen=True)
class Gradients:
    """Of an effective batch.

    Attributes:
        loss_sum: of its losses.
        num_losses: how many these are: trained tokens, or pairs.
        arrays: of their mean, float32, by parameter; empty if there are none. Where no row has an image, encoder and
            connector have none: they are then left as they are, without decay and without a count, as by torch.
        norm: of all of them together.
        measures: means of what the losses come with, by name.
    """

    loss_sum: float
    num_losses: int
    arrays: Arrays
    norm: float
    measures: Mapping[str, float] = field(default_factory=dict)

    @property
    def loss(self) -> float | None:
        """The mean; None if there are no losses."""
        return self.loss_sum / self.num_losses if self.num_losses else None

    @property
    def are_finite(self) -> bool:
        """Whether there is neither a NaN nor an infinity."""
        return math.isfinite(self.loss_sum) and math.isfinite(self.norm)


def gradients_of(
    trainable: Trainable,
    batches: Iterable[MicroBatch],
    losses: BatchLosses = token_losses,
    *,
    checkpoint: bool = False,
    is_shared: bool = False,
) -> Gradients:
    """Gradients of the mean of all losses of some micro-batches, however these are divided.

    Args:
        trainable: the model.
        batches: micro-batches; each is computed and released before the next one is asked for.
        losses: those of a micro-batch.
        checkpoint: see `token_losses`.
        is_shared: add up what the processes of `mlx.launch` have.
    """
    totals = {name: mx.zeros(array.shape) for name, array in trainable.parameters.items()} if is_shared else {}
    sums = mx.zeros(1 + len(MEASURES))
    num_losses = num_visual = 0
    is_measured = False
    for batch in batches:
        if not batch.num_losses:
            continue
        parts = parts_of(batch)

        def loss_of(parameters: Arrays, parts: Sequence[MicroBatch] = parts) -> tuple[mx.array, mx.array]:
            trainable.put(parameters)
            each = each_side_by_side([partial(_sums, losses, trainable, part, checkpoint) for part in parts])
            added = sum(each[1:], each[0])
            return added[0], mx.stop_gradient(added)

        (_, own), found = mx.value_and_grad(loss_of)(trainable.parameters)
        totals = {name: totals[name] + found[name] for name in found} if totals else found
        sums = sums + own
        num_losses += batch.num_losses
        num_visual += batch.tiles is not None
        is_measured = batch.references is not None
        with one_blas_thread() if len(parts) > 1 else nullcontext():
            mx.eval(totals, sums)
        trainable.put(trainable.parameters)  # what the gradient left there holds its whole graph
    if is_shared:
        totals, sums, num_losses, num_visual = _added_up(totals, sums, num_losses, num_visual)
    reached = [name for name in totals if num_visual or part_of_path(name) == TEXT] if num_losses else []
    arrays = {name: totals[name] / num_losses for name in reached}
    squares = [mx.square(array).sum() for array in arrays.values()]
    norm = mx.sqrt(sum(squares, mx.array(0.0)))
    mx.eval(arrays, norm)
    loss_sum, *measures = sums.tolist()  # type: ignore[misc]
    named = {name: value / num_losses for name, value in zip(MEASURES, measures, strict=True)} if is_measured else {}
    return Gradients(loss_sum, num_losses, arrays, norm.item(), named)  # type: ignore[arg-type]


def with_measures(
    losses: BatchLosses, trainable: Trainable, batch: MicroBatch, checkpoint: bool = False
) -> tuple[mx.array, mx.array]:
    """Losses of a micro-batch, and the sums of `MEASURES`: 0 where there is nothing to measure."""
    found = losses(trainable, batch, checkpoint)
    return found if isinstance(found, tuple) else (found, mx.zeros(len(MEASURES)))


def _sums(losses: BatchLosses, trainable: Trainable, batch: MicroBatch, checkpoint: bool) -> mx.array:
    """Of the losses and of `MEASURES`, (5,)."""
    values, measures = with_measures(losses, trainable, batch, checkpoint)
    return mx.concatenate([values.sum()[None], measures])


def _added_up(totals: Arrays, sums: mx.array, num_losses: int, num_visual: int) -> tuple[Arrays, mx.array, int, int]:
    """The same of all processes together, in one exchange."""
    counts = mx.array([float(num_losses >> 16), float(num_losses & 0xFFFF), float(num_visual)])
    start = sums.size + counts.size
    flat = mx.concatenate([sums, counts, *(totals[name].reshape(-1) for name in totals)])
    flat = mx.distributed.all_sum(flat, stream=mx.cpu)
    mx.eval(flat)
    numbers: list[float] = flat[sums.size : start].tolist()  # type: ignore[assignment]
    added = {}
    for name, total in totals.items():
        added[name] = flat[start : start + total.size].reshape(total.shape)
        start += total.size
    return added, flat[: sums.size], (round(numbers[0]) << 16) + round(numbers[1]), round(numbers[2])


class Optimization:
    """AdamW with bias correction, its learning rates, and the gradients' clipping.

    Attributes:
        step: optimizer steps done.
        num_steps: of the whole run.
        is_whole: False while a step is taken, and after one that was broken off.
    """

    def __init__(self, trainable: Trainable, recipe: Recipe, num_steps: int):
        self.step = 0
        self.is_whole = True
        self.num_steps = num_steps
        self._trainable = trainable
        self._recipe = recipe
        own_rates = {TEXT: None, VISION: recipe.vision_learning_rate, CONNECTOR: recipe.connector_learning_rate}
        for part, rate in own_rates.items():
            if rate is not None and part not in trainable.parts:
                raise ValueError(f"--{_NAMES[part]}-learning-rate has no effect: no layer of that part is trained")
        self._rates = {part: rate or recipe.learning_rate for part, rate in own_rates.items()}
        groups: dict[tuple[str, bool], list[str]] = {}
        for name in trainable.parameters:
            groups.setdefault((part_of_path(name), _decays(name)), []).append(name)
        self._groups = groups
        self._optimizers = {}
        for group, names in groups.items():
            decay = recipe.weight_decay if group[1] else 0.0
            optimizer = AdamW(0.0, weight_decay=decay, bias_correction=True)  # betas 0.9 and 0.999, eps 1e-8
            optimizer.init({name: trainable.parameters[name] for name in names})
            self._optimizers[group] = optimizer

    @property
    def learning_rate(self) -> float:
        """Of the next step, of parts without a rate of their own."""
        return self._recipe.learning_rate * self._factor

    @property
    def _factor(self) -> float:
        return learning_rate_factor(self.step, self.num_steps, self._recipe.schedule, self._recipe.warmup)

    def update(self, gradients: Gradients) -> None:
        """Take a step. Without trained tokens it is counted and changes nothing."""
        arrays = gradients.arrays
        if arrays and self._recipe.max_grad_norm is not None:
            arrays, _ = clip_grad_norm(arrays, self._recipe.max_grad_norm)
        parameters = self._trainable.parameters
        self.is_whole = False
        for group, names in self._groups.items():
            if names[0] not in arrays:
                continue
            optimizer = self._optimizers[group]
            optimizer.learning_rate = self._rates[group[0]] * self._factor
            changed: Any = optimizer.apply_gradients(
                {name: arrays[name] for name in names}, {name: parameters[name] for name in names}
            )
            parameters |= changed
        mx.eval(parameters, [optimizer.state for optimizer in self._optimizers.values()])
        self._trainable.put(parameters)
        self.step += 1
        self.is_whole = True

    def state(self) -> Arrays:
        """What a later run needs to go on: parameters, moments and counts, by name."""
        arrays = {f"parameter {name}": array for name, array in self._trainable.parameters.items()}
        for (part, decays), optimizer in self._optimizers.items():
            arrays[f"updates {part} {decays}"] = optimizer.state["step"]
            for name in self._groups[part, decays]:
                arrays |= {f"{kind} {name}": optimizer.state[name][kind] for kind in ("m", "v")}
        return arrays

    def restore(self, step: int, arrays: Mapping[str, mx.array]) -> None:
        """Go on from what `state` gave after so many steps. Raises KeyError or ValueError if it is of another run."""
        expected = self.state()
        if {name: array.shape for name, array in arrays.items()} != {n: a.shape for n, a in expected.items()}:
            raise ValueError("the saved state is that of another run")
        self.step = step
        for name in self._trainable.parameters:
            self._trainable.parameters[name] = arrays[f"parameter {name}"]
        for (part, decays), optimizer in self._optimizers.items():
            optimizer.state["step"] = arrays[f"updates {part} {decays}"]
            for name in self._groups[part, decays]:
                optimizer.state[name] = {kind: arrays[f"{kind} {name}"] for kind in ("m", "v")}
        mx.eval(self._trainable.parameters, [optimizer.state for optimizer in self._optimizers.values()])
        self._trainable.put(self._trainable.parameters)


def _decays(name: str) -> bool:
    """Whether weight decay applies: neither to biases nor to norms, as in transformers' Trainer."""
    return not (name.endswith(".bias") or "norm" in name)
