"""A whole conversation as it is trained on: its text, and which parts of it the assistant says.

What counts is what TRL's `assistant_only_loss` counts: all that follows the opening of an answer, with the end of the
turn. Where a prompt and its completion are given apart, all of the completion counts, as with `completion_only_loss`.
A template that marks answers with `{% generation %}` is taken at its word. In others the parts are found by rendering
the conversation up to each answer and with it, so that nothing depends on how a template spells its roles, and words
of a user that look like the opening of an answer stay the user's.
"""

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .chat_template import HAS_GENERATION, render, template_for
from .messages import Conversation
from .processor_config import ProcessorConfig

_MARKS = ("\ue003", "\ue004")  # characters for private use


@dataclass(frozen=True)
class Turns:
    """A rendered conversation.

    Attributes:
        text: with a marker for each image and video, and no opening of a further answer at its end.
        spans: where what the assistant says begins and ends in `text`, in characters, ascending.
    """

    text: str
    spans: list[tuple[int, int]]


def render_turns(config: ProcessorConfig, conversation: Conversation, first: int = 0) -> Turns:
    """Render a conversation by the checkpoint's template.

    Args:
        config: the checkpoint's processor.
        conversation: what was said; not a prompt as text.
        first: number of the message with which the completion of a prompt begins: then all that follows the prompt
            counts, as in TRL's `completion_only_loss`; 0 for a conversation without a prompt.

    Raises:
        ValueError: no template, or one that does not tell what the assistant says.
    """
    template = template_for(config.chat_template, bool(conversation.videos))
    if first:
        return _completed(template, conversation.messages, config.special_tokens, first)
    if HAS_GENERATION.search(template):
        return _marked(template, conversation.messages, config.special_tokens)
    return _compared(template, conversation.messages, config.special_tokens)


def render_whole(config: ProcessorConfig, conversation: Conversation) -> str:
    """The text of a conversation, without looking for the assistant's part. Raises what `render_turns` raises."""
    template = template_for(config.chat_template, bool(conversation.videos))
    return render(template, conversation.messages, config.special_tokens, add_generation_prompt=False)


def _completed(template: str, messages: list[dict[str, Any]], special_tokens: dict[str, str], first: int) -> Turns:
    continues = messages[first - 1]["role"] == "assistant" and messages[first - 1]["content"][-1]["type"] == "text"
    prompt = render(template, messages[:first], special_tokens, continue_final_message=continues)
    text = render(template, messages, special_tokens, add_generation_prompt=False)
    if not text.startswith(prompt) or text == prompt:
        raise ValueError(
            "the checkpoint's chat template does not tell the completion from the prompt: it does not follow the "
            "opening that is written for a new answer; give the row as messages instead"
        )
    return Turns(text, [(len(prompt), len(text))])


def _compared(template: str, messages: list[dict[str, Any]], special_tokens: dict[str, str]) -> Turns:
    def rendered(count: int, add_generation_prompt: bool) -> str:
        return render(template, messages[:count], special_tokens, add_generation_prompt=add_generation_prompt)

    text, spans = rendered(len(messages), False), []
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before, opening, through = rendered(number, False), rendered(number, True), rendered(number + 1, False)
        grows = [before, opening, through, text]
        is_told = all(longer.startswith(shorter) for shorter, longer in pairwise(grows))
        if not is_told or not len(before) < len(opening) < len(through):
            raise ValueError(
                "the checkpoint's chat template does not tell what the assistant says: its answers do not follow the "
                "opening that it writes for a new one; mark them with {% generation %} in the template"
            )
        spans.append((len(opening), len(through)))
    return Turns(text, spans)


def _marked(template: str, messages: list[dict[str, Any]], special_tokens: dict[str, str]) -> Turns:
    if any(mark in str(item.get("text")) for mark in _MARKS for message in messages for item in message["content"]):
        raise ValueError("a text has one of the characters U+E003 and U+E004, which stand for nothing; take it out")

    marked = render(template, messages, special_tokens, add_generation_prompt=False, generation_marks=_MARKS)
    pieces, spans, place = re.split("|".join(_MARKS), marked), [], 0
    for number, piece in enumerate(pieces):
        if number % 2:
            spans.append((place, place + len(piece)))
        place += len(piece)
    if not spans:
        raise ValueError("the checkpoint's chat template marks nothing with {% generation %} in this conversation")
    return Turns("".join(pieces), spans)
