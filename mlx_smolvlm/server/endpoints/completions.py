"""`/v1/completions`: a prompt as it is, without a chat template, with an image or video for each marker in it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...options import MAX_LOGPROBS, quoted
from ..errors import bad_request
from ..http.streaming import DONE, KEEP_ALIVE, StreamedAnswer, event_bytes, held_while_connected, while_connected
from ..http.strict_json import read_body
from ..intake.chat_request import AnswerRequest, read_answer_request
from ..intake.fields import BodyFields
from ..intake.message_parts import MediaPart, check_counts, read_part
from ..intake.planning import planned_prompt
from ..settings import ServerSettings
from .answering import Generation
from .answers import AnswerTexts, completion_logprobs, finish_reason, new_id, now_s, timings, usage
from .chat_completions import begun_with


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
    parts = tuple(
        part for name, kind in (("images", "image"), ("videos", "video")) for part in _parts(fields, name, kind)
    )
    check_counts([part for part in parts if part.kind == "image"], settings, "images")
    check_counts([part for part in parts if part.kind == "video"], settings, "videos")
    if fields.get("suffix") not in (None, ""):
        raise bad_request("suffix is not supported; leave it out", "suffix", "unsupported_parameter")
    echo = fields.flag("echo") or False
    logprobs = fields.whole("logprobs", 0, MAX_LOGPROBS)
    answer = read_answer_request(fields, settings, apply_chat_template=False, logprobs=logprobs)
    return CompletionRequest(prompt, parts, answer, echo)


def _parts(fields: BodyFields, name: str, kind: str) -> list[MediaPart]:
    values = fields.get(name)
    if values is None:
        return []
    if not isinstance(values, list):
        raise fields.wrong(name, "a list of data URLs, addresses or parts")
    parts = []
    for number, value in enumerate(values):
        where = f"{name}[{number}]"
        part = read_part(value if isinstance(value, dict) else {"type": f"{kind}_url", f"{kind}_url": value}, where)
        if not isinstance(part, MediaPart) or part.kind != kind:
            raise bad_request(f"{where} is {quoted(value)}, expected {'an' if kind == 'image' else 'a'} {kind}", where)
        parts.append(part)
    return parts


async def completions(request: Request) -> Response:
    """`POST /v1/completions`."""
    state = request.app.state

    def read(body: dict[str, Any]) -> CompletionRequest:
        state.model.check(body)
        return read_completion_request(body, state.settings)

    asked = await read_body(request, read)
    state.engine.check_ready()
    if not asked.answer.stream:
        return JSONResponse(await while_connected(request, _answered(request, asked)))
    generation, held = await held_while_connected(request, lambda held: _begun(request, asked, held))
    return StreamedAnswer(_chunks(request, asked, generation), held)


async def _begun(request: Request, asked: CompletionRequest, held: AsyncExitStack) -> Generation:
    state = request.app.state
    plan = planned_prompt(asked.prompt, asked.parts, asked.answer, state.engine, state.intake)
    return await begun_with(request, plan, asked.answer, held)


async def _answered(request: Request, asked: CompletionRequest) -> dict[str, Any]:
    state = request.app.state
    async with AsyncExitStack() as held:
        generation = await _begun(request, asked, held)
        answers = AnswerTexts(asked.answer.n, state.engine.processor)
        async for item in generation.events():
            if item is not None:
                answers.add(*item)
        before = asked.prompt if asked.echo else ""
        wants_logprobs = asked.answer.options.logprobs is not None
        choices = [
            {
                "index": number,
                "text": before + answers.texts[number],
                "finish_reason": finish_reason(generation.latest.get(number)),
                "logprobs": completion_logprobs(answers.logprobs[number], len(before)) if wants_logprobs else None,
            }
            for number in range(asked.answer.n)
        ]
        return {
            "id": new_id("cmpl"),
            "object": "text_completion",
            "created": now_s(),
            "model": state.model.id,
            "choices": choices,
            "usage": usage(generation),
            "timings": timings(generation.jobs[0], generation.latest[0]),
        }


async def _chunks(request: Request, asked: CompletionRequest, generation: Generation) -> AsyncIterator[bytes]:
    state, answer = request.app.state, asked.answer
    head = {"id": new_id("cmpl"), "object": "text_completion", "created": now_s(), "model": state.model.id}
    unset: dict[str, Any] = {"usage": None} if answer.include_usage else {}
    before = asked.prompt if asked.echo else ""
    lengths = [len(before)] * answer.n
    pending: list[list[dict[str, Any]]] = [[] for _ in range(answer.n)]
    texts = AnswerTexts(answer.n, state.engine.processor)

    def chunk(number: int, text: str, reason: str | None = None, **more: Any) -> bytes:
        logprobs = None
        if pending[number]:
            logprobs = completion_logprobs(pending[number], lengths[number])
            lengths[number] += sum(len(entry["token"]) for entry in pending[number])
            pending[number] = []
        choice = {"index": number, "text": text, "logprobs": logprobs, "finish_reason": reason}
        return event_bytes({**head, "choices": [choice], **unset, **more})

    for number in range(answer.n):
        yield chunk(number, before)
    async for item in generation.events(state.settings.keep_alive_s):
        if item is None:
            yield KEEP_ALIVE
            continue
        number, event = item
        pending[number] += texts.add(number, event)
        if event.text:
            yield chunk(number, event.text)
        if event.finish_reason is not None:
            yield chunk(number, "", finish_reason(event), timings=timings(generation.jobs[number], event))
    if answer.include_usage:
        yield event_bytes({**head, "choices": [], "usage": usage(generation)})
    yield DONE
