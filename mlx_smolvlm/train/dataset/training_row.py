"""One row of training data, whatever it was read from, and what is wrong with it."""

from dataclasses import dataclass, field
from typing import Any


class RowError(ValueError):
    """A row that cannot be trained on; the message begins with its name.

    Attributes:
        name: the row's, such as "rows.jsonl:12".
    """

    def __init__(self, name: str, problem: object):
        super().__init__(f"{name}: {problem}")
        self.name = name


class RowTooLong(RowError):
    """A row of more tokens than are trained on. Its images cannot be cut, so it is left out as a whole."""


@dataclass(frozen=True)
class TrainingRow:
    """A conversation to train on.

    Attributes:
        name: file and line, as errors call it: "rows.jsonl:12".
        messages: in Hugging Face's form, every image and video in its place, with its source in full; empty if
            `rendered` is given.
        first: number of the message with which a completion begins, all of which is trained; 0 where there is no prompt
            of its own, and the assistant's turns are trained.
        rendered: a prompt and its completion as text that needs no template, with markers; None for `messages`.
        images: the sources of the images that `rendered` has markers for.
    """

    name: str
    messages: list[dict[str, Any]]
    first: int = 0
    rendered: tuple[str, str] | None = None
    images: list[Any] = field(default_factory=list)
