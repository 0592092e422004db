"""How far the reading of a prompt is. Imports nothing, as those who only pass it on need not wait for MLX."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PromptProgress:
    """How much of a row's prompt has been read.

    Attributes:
        total, cached, processed: tokens of the prompt; those that were copied from an earlier prompt; those that are
            done, the copied ones included.
        seconds: since the model began with the prompt.
    """

    total: int
    cached: int
    processed: int
    seconds: float
