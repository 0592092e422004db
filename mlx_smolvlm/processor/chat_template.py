"""Chat messages -> prompt text, by the checkpoint's own jinja template in a sandbox.

Templates come with checkpoints and are untrusted code: they run in jinja2's immutable sandbox, within the bounds of
`bounded_template.py`, with the globals and whitespace rules that transformers gives them
(`utils/chat_template_utils.py`).
"""

import json
import re
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from threading import Lock
from typing import Any

from ..media.urls import printable

MAX_TEMPLATE_CHARS = 100_000  # the longest of released models have some 20,000
MAX_INDENT = 32  # spaces that `tojson` may indent by
_MAX_DATE_FORMAT = 200

FAMILY_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for item in message['content'] %}"
    "{% if item['type'] == 'text' %}{{ item['text'] }}"
    "{% elif item['type'] == 'image' %}{{ '<image>' }}"
    "{% elif item['type'] == 'video' %}{{ '<video>' }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""The template that the family was trained with; used for conversations with a video, which older templates drop."""


_CONTINUED = "\ue000 continued here \ue000"  # characters for private use, which no template looks for
_MARKS = ("generation_begins", "generation_ends")  # variables of templates that stand around `{% generation %}` blocks
HAS_GENERATION = re.compile(r"\{%[-+]?\s*generation\b")
_MAKING = Lock()


def render(
    template: str,
    messages: list[dict[str, Any]],
    special_tokens: dict[str, str],
    *,
    continue_final_message: bool = False,
    add_generation_prompt: bool = True,
    generation_marks: tuple[str, str] = ("", ""),
    check_cancelled: Callable[[], None] = lambda: None,
) -> str:
    """Fill in a template, with the opening of the assistant's answer at the end.

    Args:
        template: jinja source.
        messages: `[{"role": ..., "content": [{"type": "text", "text": ...} | {"type": "image"} | ...]}]`.
        special_tokens: template variables such as `bos_token`.
        continue_final_message: the last message, whose content ends with text, is the beginning of the answer: nothing
            follows it.
        add_generation_prompt: False leaves out the opening of an answer.
        generation_marks: what to write before and after what `{% generation %}` blocks write.
        check_cancelled: called while the template runs; it may raise to stop.

    Raises:
        ValueError: the template is faulty, refuses the messages, leaves the sandbox, crosses a limit of
            `bounded_template.py`, or drops the last message.
    """
    if continue_final_message:
        *content, text = messages[-1]["content"]
        marked = {**messages[-1], "content": [*content, {**text, "text": text["text"] + _CONTINUED}]}
        variables = {**special_tokens, "messages": [*messages[:-1], marked], "add_generation_prompt": False}
        rendered = _rendered(template, variables, check_cancelled)
        before, mark, _ = rendered.rpartition(_CONTINUED)
        if not mark:
            raise ValueError("the checkpoint's chat template does not show the last message, so it cannot be continued")
        return before
    variables = {**special_tokens, "messages": messages, "add_generation_prompt": add_generation_prompt}
    return _rendered(template, {**variables, **dict(zip(_MARKS, generation_marks, strict=True))}, check_cancelled)


def template_for(own: str | None, has_videos: bool) -> str:
    """The template of a conversation: `own`, the checkpoint's, or with a video the family's, as in the reference.

    Raises:
        ValueError: the checkpoint has none.
    """
    template = FAMILY_TEMPLATE if has_videos else own
    if template is None:
        raise ValueError(
            "the checkpoint has no chat template, so it is a base model; "
            "pass the whole prompt as text, with apply_chat_template=False"
        )
    return template


def _rendered(template: str, variables: dict[str, Any], check_cancelled: Callable[[], None]) -> str:
    if len(template) > MAX_TEMPLATE_CHARS:
        raise ValueError(
            f"the checkpoint's chat template has {len(template)} characters, the limit is {MAX_TEMPLATE_CHARS}"
        )
    with _environment().working(check_cancelled) as work:
        try:
            text: str = _compiled(template).render(variables)
            return text
        except Exception as error:  # it is a program: besides jinja2's errors it may divide by zero or exhaust memory
            if error is work.stopped:
                raise
            reason = printable(" ".join(str(error)[:1000].split()), 300) or type(error).__name__
            raise ValueError(f"the checkpoint's chat template failed: {reason}") from None


@lru_cache(maxsize=8)
def _compiled(template: str) -> Any:
    return _environment().from_string(template)


def _environment() -> Any:
    with _MAKING:  # threads that come first together would make several, and a template is bound to one
        return _made_environment()


@lru_cache(maxsize=1)
def _made_environment() -> Any:
    from jinja2 import nodes
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols

    from .bounded_template import BoundedEnvironment
    from .template_limits import TemplateLimitError

    class Generation(Extension):
        """`{% generation %}` marks the assistant's words for training: they pass through, between two variables."""

        tags = {"generation"}  # noqa: RUF012 - jinja2 reads it from the class

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            words = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            before, after = (nodes.Output([nodes.Name(name, "load")]).set_lineno(line) for name in _MARKS)
            return [before, *words, after]

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def strftime_now(layout: str) -> str:
        if len(layout) > _MAX_DATE_FORMAT or re.search(r"%[^A-Za-z%]*\d", layout):  # a width, which may be any
            raise TemplateLimitError("it formats dates with a width, or by a long format")
        return datetime.now().strftime(layout)

    def tojson(value: Any, indent: int | None = None) -> str:
        if indent is not None and not (isinstance(indent, int) and 0 <= indent <= MAX_INDENT):
            raise TemplateLimitError(f"it indents JSON by other than 0 to {MAX_INDENT} spaces")
        return environment.concat(json.JSONEncoder(ensure_ascii=False, indent=indent).iterencode(value))

    environment = BoundedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.add_filter("tojson", tojson)
    environment.add_function("raise_exception", raise_exception)
    environment.add_function("strftime_now", strftime_now)
    return environment
