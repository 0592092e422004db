"""The prompts around pages and queries. colpali-engine changed them over its versions, and vectors change with them."""

from dataclasses import dataclass

from ..options import quoted

DEFAULT_FORMAT = "training"
_ENDS = 10 * "<end_of_utterance>"  # after a query; their vectors widen it


@dataclass(frozen=True)
class PromptFormat:
    """The text around an image, and around a query."""

    page: str
    query_start: str
    query_end: str


PROMPT_FORMATS = {
    # colpali-engine 0.3.5 to 0.3.8, which the released checkpoints were trained with
    "training": PromptFormat(
        page="<|im_start|>User: Describe the image.<image><end_of_utterance>",
        query_start="Query: ",
        query_end=f"{_ENDS}\n",
    ),
    # 0.3.13 and later
    "current": PromptFormat(
        page="<|im_start|>User:<image>Describe the image.<end_of_utterance>\nAssistant:",
        query_start="",
        query_end=_ENDS,
    ),
}


def find_format(name: str) -> PromptFormat:
    """The format of a name. Raises ValueError if there is none."""
    if name not in PROMPT_FORMATS:
        raise ValueError(f"prompt_format is {quoted(name)}, expected one of {', '.join(PROMPT_FORMATS)}")
    return PROMPT_FORMATS[name]
