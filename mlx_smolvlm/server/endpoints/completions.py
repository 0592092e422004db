"""`/v1/completions`: a prompt as it is, without a chat template, with an image or video for each marker in it."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ...options import MAX_LOGPROBS, quoted
from ..errors import bad_request
from ..intake.chat_request import AnswerRequest, read_answer_request
from ..intake.fields import BodyFields
from ..intake.message_parts import MediaPart, check_counts, read_part
from ..intake.planning import planned_prompt
from ..intake.unknown_fields import UnknownFields
from ..models import served_pair
from ..settings import ServerSettings
from .answering import Generation
from .answers import completion_logprobs
from .chat_completions import begun_with
from .completing import AnswerForm, Entries, completion, read_checked


@dataclass(frozen=True)
class CompletionRequest:
    """A prompt with its media, and how it is answered; `echo` puts the prompt before the answer."""

    prompt: str
    parts: tuple[MediaPart, ...]
    answer: AnswerRequest
    echo: bool = False


def read_completion_request(body: Mapping[str, Any], settings: ServerSettings) -> CompletionRequest:
    """Check the body of a request. `images` and `videos` are lists of addresses or parts, one for each marker.

    Raises:
        ApiError: as `read_chat_request`.
    """
    fields = BodyFields(body)
    fields.get("model")
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str) or not prompt:
        raise bad_request(f"prompt is {quoted(prompt)}, expected text that is not empty, or a list of one", "prompt")
    unknown = UnknownFields(settings.strict)
    kinds = (("images", "image"), ("videos", "video"))
    parts = tuple(part for name, kind in kinds for part in _parts(fields, name, kind, unknown))
    check_counts([part for part in parts if part.kind == "image"], settings, "images")
    check_counts([part for part in parts if part.kind == "video"], settings, "videos")
    fields.refuse({"suffix": ("",)})
    echo = fields.flag("echo") or False
    logprobs = fields.whole("logprobs", 0, MAX_LOGPROBS)
    answer = read_answer_request(fields, settings, unknown, apply_chat_template=False, logprobs=logprobs)
    return CompletionRequest(prompt, parts, answer, echo)


def _parts(fields: BodyFields, name: str, kind: str, unknown: UnknownFields) -> list[MediaPart]:
    values = fields.get(name)
    if values is None:
        return []
    if not isinstance(values, list):
        raise fields.wrong(name, "a list of data URLs, addresses or parts")
    parts = []
    for number, value in enumerate(values):
        where = f"{name}[{number}]"
        given = value if isinstance(value, dict) else {"type": f"{kind}_url", f"{kind}_url": value}
        part = read_part(given, where, unknown)
        if not isinstance(part, MediaPart) or part.kind != kind:
            raise bad_request(f"{where} is {quoted(value)}, expected {'an' if kind == 'image' else 'a'} {kind}", where)
        parts.append(part)
    return parts


async def completions(request: Request) -> Response:
    """`POST /v1/completions`."""
    asked = await read_checked(request, read_completion_request)
    form = TextForm(asked.prompt if asked.echo else "")
    return await completion(request, form, asked.answer.stream, lambda held: _begun(request, asked, held))


class TextForm(AnswerForm):
    """Answers as text, after the prompt where it is to be echoed."""

    prefix = "cmpl"
    whole_object = chunk_object = "text_completion"
    has_prompt_in_choices = True

    def __init__(self, before: str):
        self._before = before

    def whole(self, text: str) -> dict[str, Any]:
        """As `AnswerForm.whole`."""
        return {"text": self._before + text}

    def opening(self) -> dict[str, Any]:
        """As `AnswerForm.opening`."""
        return {"text": self._before}

    def delta(self, text: str) -> dict[str, Any]:
        """As `AnswerForm.delta`."""
        return {"text": text}

    def logprobs(self, entries: Entries, before: Entries) -> dict[str, Any]:
        """As `AnswerForm.logprobs`."""
        return completion_logprobs(entries, len(self._before) + sum(len(entry["token"]) for entry in before))


async def _begun(request: Request, asked: CompletionRequest, held: AsyncExitStack) -> Generation:
    state = request.app.state
    plan = planned_prompt(asked.prompt, asked.parts, asked.answer, served_pair(request), state.intake)
    return await begun_with(request, plan, asked.answer, held)
