"""What a training run is asked to do: every option with its default and its check."""

import math
from dataclasses import dataclass, fields
from typing import Any

from ..options import is_between, quoted

METHODS = ("lora", "dora", "rslora", "full")
SCHEDULES = ("constant", "cosine")
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
DEFAULT_RANK = 8
_MAX_INT = 2**31 - 1


@dataclass(frozen=True)
class Recipe:
    """Options of a run that decide its result.

    Attributes:
        method: one of `METHODS`; None for LoRA, or what `init_adapter` is.
        rank, alpha: of new adapters; None for 8, and for alpha = rank. An adapter that is continued has its own.
        dropout: share of an adapter's inputs that are dropped, from 0 to below 1.
        train_vision, train_connector: train these parts, too.
        vision_learning_rate, connector_learning_rate: their rates; None for `learning_rate`.
        targets: names of layers to adapt, in PEFT's sense: a whole path or its end. Empty for the text's projections,
            and those of the parts that are trained.
        init_adapter: folder of a PEFT adapter to continue.
        steps: optimizer steps; None for `epochs`.
        epochs: times that all rows are seen; None, with no steps either, for 1.
        batch_size, accumulate: rows of a batch, and batches of an optimizer step.
        learning_rate: the highest one.
        schedule: one of `SCHEDULES`; "cosine" falls to 0 at the last step.
        warmup: steps in which the rate rises from 0, as transformers does it.
        weight_decay: of AdamW, decoupled; biases and norms have none.
        max_grad_norm: gradients of a larger norm are scaled down to it; None leaves them.
        seed: of new matrices, the order of rows, and dropout.
        shuffle: False keeps the order of the file.
        train_on_prompt: all tokens but those of images count in the loss, not the assistant's alone.
        preference: rows have a chosen and a rejected answer, and the chosen one is made likelier (DPO).
        beta: how far preferences may lead away from the model that training begins with; the smaller, the further.
        validation: file of held rows; None for none.
        validation_share: share of the rows to hold; None for none.
        validate_every: steps between two validations; None for a tenth of the run.
        patience: validations without a better one after which the run ends; None goes on.
        dtype: in which the networks compute; None for `default_dtype()`. What is trained is kept in float32.
        max_memory_gb: bound for the memory; None for none.
        grad_checkpoint: compute activations again instead of keeping them.
    """

    method: str | None = None
    rank: int | None = None
    alpha: float | None = None
    dropout: float = 0.0
    train_vision: bool = False
    train_connector: bool = False
    vision_learning_rate: float | None = None
    connector_learning_rate: float | None = None
    targets: tuple[str, ...] = ()
    init_adapter: str | None = None
    steps: int | None = None
    epochs: int | None = None
    batch_size: int = 4
    accumulate: int = 1
    learning_rate: float = 1e-4
    schedule: str = "constant"
    warmup: int = 0
    weight_decay: float = 0.01
    max_grad_norm: float | None = None
    seed: int = 0
    shuffle: bool = True
    train_on_prompt: bool = False
    preference: bool = False
    beta: float = 0.1
    validation: str | None = None
    validation_share: float | None = None
    validate_every: int | None = None
    patience: int | None = None
    dtype: str | None = None
    max_memory_gb: float | None = None
    grad_checkpoint: bool = False

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: an option out of range, or two that contradict each other.
        """
        for name, choices in (("method", METHODS), ("schedule", SCHEDULES)):
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise ValueError(f"{flag(name)} is {quoted(value)}, expected one of {', '.join(choices)}")
        for name, least in _WHOLE_NUMBERS.items():
            value = getattr(self, name)
            if value is not None and not (type(value) is int and least <= value <= _MAX_INT):
                raise ValueError(f"{flag(name)} is {quoted(value)}, expected a whole number from {least} on")
        for name in ("alpha", "learning_rate", "vision_learning_rate", "connector_learning_rate", "max_grad_norm"):
            self._check_positive(name)
        self._check_positive("max_memory_gb")
        self._check_positive("beta")
        share = self.validation_share
        if share is not None and not (is_between(share, 0, 1) and 0 < share < 1):
            raise ValueError(f"--validation-share is {quoted(share)}, expected a number between 0 and 1")
        if not is_between(self.weight_decay, 0, 1e6):
            raise ValueError(f"--weight-decay is {quoted(self.weight_decay)}, expected a number from 0 on")
        if not (is_between(self.dropout, 0, 1) and self.dropout < 1):
            raise ValueError(f"--dropout is {quoted(self.dropout)}, expected a number from 0 to below 1")
        self._check_contradictions()

    def _check_positive(self, name: str) -> None:
        value = getattr(self, name)
        if value is not None and not (type(value) in (int, float) and 0 < value < math.inf):
            raise ValueError(f"{flag(name)} is {quoted(value)}, expected a number above 0")

    def _check_contradictions(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("--steps and --epochs exclude each other; give one of them")
        if self.validation is not None and self.validation_share is not None:
            raise ValueError("--validation and --validation-share exclude each other; give one of them")
        if self.validation is None and self.validation_share is None:
            for name in ("validate_every", "patience"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{flag(name)} has no effect without --validation or --validation-share")
        if self.preference and self.method == "full":
            raise ValueError("--preference compares an adapter with what it began as; leave out --method full")
        if self.preference and self.train_on_prompt:
            raise ValueError("--preference compares answers; leave out --train-on-prompt")
        if self.beta != 0.1 and not self.preference:
            raise ValueError("--beta has no effect without --preference")
        if self.targets and (self.train_vision or self.train_connector):
            part = "--train-vision" if self.train_vision else "--train-connector"
            raise ValueError(f"--target and {part} exclude each other; name the part's layers by --target as well")
        if self.method == "full":
            of_adapters: dict[str, object] = {"rank": self.rank, "alpha": self.alpha, "init_adapter": self.init_adapter}
            of_adapters |= {"dropout": self.dropout or None, "targets": self.targets or None}
            for name, value in of_adapters.items():
                if value is not None:
                    raise ValueError(f"{flag(name)} is for adapters; --method full trains whole parts without one")

    @property
    def run_epochs(self) -> int | None:
        """Times that all rows are seen; None if steps are counted."""
        return None if self.steps is not None else self.epochs or 1

    def as_json(self) -> dict[str, Any]:
        """All options by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"targets": list(self.targets)}


_WHOLE_NUMBERS = {
    "validate_every": 1,
    "patience": 1,
    "rank": 1,
    "steps": 1,
    "epochs": 1,
    "batch_size": 1,
    "accumulate": 1,
    "warmup": 0,
    "seed": 0,
}
_FLAGS = {"targets": "--target", "shuffle": "--no-shuffle", "max_memory_gb": "--max-memory"}


def flag(name: str) -> str:
    """The flag of an option."""
    return _FLAGS.get(name, f"--{name.replace('_', '-')}")


def learning_rate_factor(step: int, num_steps: int, schedule: str, warmup: int) -> float:
    """Share of the highest learning rate in a step, counted from 0.

    As in transformers, `optimization.py` (`get_constant_schedule_with_warmup`, `get_cosine_schedule_with_warmup`): with
    a warm-up the first step has rate 0.
    """
    if step < warmup:
        return step / warmup
    if schedule == "constant":
        return 1.0
    progress = (step - warmup) / max(1, num_steps - warmup)
    return max(0.0, 0.5 * (1 + math.cos(math.pi * progress)))
