"""Held rows as questions: what is asked, what the row answers, and what the model sees."""

from dataclasses import dataclass
from itertools import islice
from typing import Any

from PIL import Image

from ...processor.prompt_media import LoadedImage
from ..dataset.examples import Example
from ..dataset.training_row import TrainingRow
from .check_page import data_url

_SHOWN_SIDE = 160  # pixels
_SHOWN_FRAMES = 6  # of a video


@dataclass(frozen=True)
class HeldQuestion:
    """A held row without its last answer.

    Attributes:
        row: its name.
        prompt: messages up to the answer, or text as the template would write it.
        images: those that the text has markers for.
        question: the last question, as text.
        expected: the row's own answer.
        num_expected: its tokens, and those of earlier answers.
    """

    row: str
    prompt: list[dict[str, Any]] | str
    images: list[Any]
    question: str
    expected: str
    num_expected: int


def held_question(row: TrainingRow, example: Example) -> HeldQuestion:
    """The question of a row, which is also given as an example."""
    num_expected = int(example.trained.sum())
    if row.rendered is not None:
        prompt, answer = row.rendered
        return HeldQuestion(
            row.name, prompt, [_read(image) for image in row.images], prompt, answer.strip(), num_expected
        )
    last = max(number for number, message in enumerate(row.messages) if message["role"] == "assistant")
    messages = [
        {**message, "content": [_with_source(item) for item in message["content"]]} for message in row.messages[:last]
    ]
    question = next((message for message in reversed(messages) if message["role"] == "user"), messages[-1])
    return HeldQuestion(row.name, messages, [], _text(question), _text(row.messages[last]).strip(), num_expected)


def shown_images(example: Example) -> list[str]:
    """Data URLs of the images of an example, and of the first frames of its videos."""
    shown: list[Image.Image] = []
    with example.opened() as prompt:
        for medium in prompt.media:
            if isinstance(medium, LoadedImage) and medium.image is not None:
                shown.append(medium.image)
            else:
                shown += map(Image.fromarray, islice(medium.tiles(lambda: None), _SHOWN_FRAMES))
        return [data_url(image, _SHOWN_SIDE) for image in shown]


def _text(message: dict[str, Any]) -> str:
    return "\n".join(str(item.get("text", "")) for item in message["content"] if item["type"] == "text")


def _with_source(item: dict[str, Any]) -> dict[str, Any]:
    return {key: _read(value) for key, value in item.items()}


def _read(source: Any) -> Any:
    return source.read() if hasattr(source, "read") else source
