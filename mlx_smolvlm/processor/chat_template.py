"""Chat messages -> prompt text, by the checkpoint's own jinja template in a sandbox.

Templates come with checkpoints and are untrusted code: they run in jinja2's immutable sandbox, with the
globals and whitespace rules that transformers gives them (`utils/chat_template_utils.py`).
"""

import json
from datetime import datetime
from functools import lru_cache
from typing import Any

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


def render(
    template: str,
    messages: list[dict[str, Any]],
    special_tokens: dict[str, str],
    *,
    continue_final_message: bool = False,
) -> str:
    """Fill in a template, with the opening of the assistant's answer at the end.

    Args:
        template: jinja source.
        messages: `[{"role": ..., "content": [{"type": "text", "text": ...} | {"type": "image"} | ...]}]`.
        special_tokens: template variables such as `bos_token`.
        continue_final_message: the last message, whose content ends with text, is the beginning of the answer: nothing
            follows it.

    Raises:
        ValueError: the template is faulty, refuses the messages, leaves the sandbox, or drops the last message.
    """
    if continue_final_message:
        *content, text = messages[-1]["content"]
        marked = {**messages[-1], "content": [*content, {**text, "text": text["text"] + _CONTINUED}]}
        rendered = _rendered(template, [*messages[:-1], marked], special_tokens, False)
        before, mark, _ = rendered.rpartition(_CONTINUED)
        if not mark:
            raise ValueError("the checkpoint's chat template does not show the last message, so it cannot be continued")
        return before
    return _rendered(template, messages, special_tokens, True)


def _rendered(
    template: str, messages: list[dict[str, Any]], special_tokens: dict[str, str], add_generation_prompt: bool
) -> str:
    variables = {**special_tokens, "messages": messages, "add_generation_prompt": add_generation_prompt}
    try:
        text: str = _compiled(template).render(variables)
        return text
    except Exception as error:  # it is a program: besides jinja2's errors it may divide by zero or exhaust memory
        raise ValueError(f"the checkpoint's chat template failed: {str(error) or type(error).__name__}") from None


@lru_cache(maxsize=8)
def _compiled(template: str) -> Any:
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks the assistant's words for training; here it passes them through."""

        tags = {"generation"}  # noqa: RUF012 - jinja2 reads it from the class

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda layout: datetime.now().strftime(layout)
    return environment.from_string(template)
