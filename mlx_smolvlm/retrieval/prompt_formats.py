"""The prompts around pages and queries. colpali-engine changed them over its versions, and vectors change with them."""

from dataclasses import dataclass

from ..options import quoted
from ..processor.messages import IMAGE_MARKER
from ..processor.processor import END_OF_UTTERANCE

DEFAULT_FORMAT = "training"
_NUM_ENDS = 10  # end tokens after a query, whose vectors widen it


@dataclass(frozen=True)
class PromptFormat:
    """The text around an image, and around a query."""

    page: str
    query_start: str
    query_end: str


PROMPT_FORMATS = {
    # colpali-engine 0.3.5 to 0.3.8, which the released checkpoints were trained with
    "training": PromptFormat(
        page=f"<|im_start|>User: Describe the image.{IMAGE_MARKER}{END_OF_UTTERANCE}",
        query_start="Query: ",
        query_end=END_OF_UTTERANCE * _NUM_ENDS + "\n",
    ),
    # 0.3.13 and later
    "current": PromptFormat(
        page=f"<|im_start|>User:{IMAGE_MARKER}Describe the image.{END_OF_UTTERANCE}\nAssistant:",
        query_start="",
        query_end=END_OF_UTTERANCE * _NUM_ENDS,
    ),
}


def find_format(name: str) -> PromptFormat:
    """The format of a name. Raises ValueError if there is none."""
    if name not in PROMPT_FORMATS:
        raise ValueError(f"prompt_format is {quoted(name)}, expected one of {', '.join(PROMPT_FORMATS)}")
    return PROMPT_FORMATS[name]
