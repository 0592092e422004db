"""How an answer is made: what `stream_generate` takes one by one, as one object."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .sampling import SamplingOptions
from .structured import read_grammar


@dataclass(frozen=True)
class GenerationOptions:
    """How an answer is chosen, and where it ends.

    Attributes:
        max_tokens: most tokens to generate; fewer where the model's context ends.
        temperature, top_p, top_k, min_p, repetition_penalty, seed: see `SamplingOptions`.
        stop: strings that end the answer; they are not part of the text.
        skip_special_tokens: False keeps special tokens in the text (SmolDocling's layout tags are such).
        json_schema: the answer is JSON that is valid under this schema, given as an object or as JSON text.
        regex: the answer, as a whole, matches this regular expression (the syntax of Rust's `regex` crate). A
            first space is taken for the one that models begin with, and left out.

    Raises:
        ValueError: an option out of range, a schema or expression that cannot be kept to, or contradictory options.
        ImportError: `json_schema` or `regex` without llguidance.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: Sequence[str] = ()
    skip_special_tokens: bool = True
    json_schema: dict[str, Any] | str | None = None
    regex: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.max_tokens, int) or self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens!r}, expected a whole number of at least 1")
        if isinstance(self.stop, str) or not all(isinstance(string, str) and string for string in self.stop):
            raise ValueError(f"stop is {self.stop!r}, expected a list of strings that are not empty")
        _ = self.sampling
        if read_grammar(self.json_schema, self.regex) is not None and self.stop:
            raise ValueError("a stop string would cut an answer that is to keep to a form; leave one of the two out")

    @property
    def sampling(self) -> SamplingOptions:
        """How each token is chosen."""
        return SamplingOptions(self.temperature, self.top_p, self.top_k, self.min_p, self.repetition_penalty, self.seed)
