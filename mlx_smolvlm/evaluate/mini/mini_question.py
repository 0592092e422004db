"""One question of the mini suite, with its images or frames in memory."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class MiniQuestion:
    """A question and its true answer.

    Attributes:
        question: what is asked.
        answer: the true answer, or several that count.
        scorer: how an answer is judged, see `scorers.py`.
        images: the images, in order.
        frames: of a clip, if that is what is asked about.
        fps: frames of the clip per second.
        options: texts of the options A, B, ...; empty where none are given.
        choices: for the scorer "choice", for each thing that is asked: what an answer may say, and the words for it.
    """

    question: str
    answer: str | list[str]
    scorer: str
    images: Sequence[Image.Image] = ()
    frames: Sequence[Image.Image] = ()
    fps: int = 0
    options: Sequence[str] = ()
    choices: Sequence[dict[str, list[str]]] = ()
