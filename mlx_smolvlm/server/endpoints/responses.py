"""`/v1/responses`, OpenAI's newer interface, without memory: each request brings all that it is about."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ...options import quoted
from ..errors import ApiError, bad_request
from ..http.streaming import KEEP_ALIVE, StreamedAnswer, held_while_connected, json_bytes, while_connected
from ..http.strict_json import read_body
from ..intake.fields import BodyFields
from ..intake.known_fields import IGNORED_OF_STREAMS, OF_COMPLETIONS
from ..intake.translation import Rename, in_words, read_translated, renaming
from ..intake.unknown_fields import MAX_NAME_CHARS, UnknownFields
from .answers import AnswerTexts, finish_reason, new_id, timings, usage
from .chat_completions import begun

if TYPE_CHECKING:
    from ..intake.chat_request import ChatRequest
    from .answering import Generation

LOGPROBS = "message.output_text.logprobs"  # of `include`
# Field of the chat interface -> that of this one.
NAMES = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "logprobs": "include",
    "continue_final_message": "input",
}
# They refer to what a server remembers, or ask for what would change the answer. Name -> values that change nothing.
REFUSED: dict[str, tuple[Any, ...]] = {
    "previous_response_id": (),
    "conversation": (),
    "prompt": (),
    "background": (False,),
    "truncation": ("disabled",),
    "n": (1,),
    **OF_COMPLETIONS,
}
STATELESS = "this server remembers no responses; send the whole conversation as input"
ADVICE = {
    "previous_response_id": STATELESS,
    "conversation": STATELESS,
    "prompt": STATELESS,
    "background": "wait for the answer, or stream it",
    **dict.fromkeys(OF_COMPLETIONS, "/v1/chat/completions has it"),
    "truncation": "a conversation that is too long is refused; shorten it",
    "n": "a response has one answer",
}
IGNORED = ("include", "max_tool_calls", "stream_options")


def responses_routes() -> list[Route]:
    """`POST /v1/responses`."""
    return [Route("/v1/responses", create_response, methods=["POST"])]


async def create_response(request: Request) -> Response:
    """`POST /v1/responses`."""
    state = request.app.state

    def read(body: dict[str, Any]) -> tuple[Rename, "ChatRequest", _Response]:
        translated, rename = chat_body(body, UnknownFields(state.settings.strict))
        chat = read_translated(request, translated, rename)
        return rename, chat, _Response(request.state.served.id, body, chat)

    rename, chat, response = await read_body(request, read)
    state.engine.check_ready()
    with in_words(rename):
        if not chat.answer.stream:
            return JSONResponse(await while_connected(request, _answered(request, chat, response)))
        generation, held = await held_while_connected(request, lambda held: begun(request, chat, held))
    events = _Events()
    return StreamedAnswer(_parts(request, generation, response, events), held, events.error)


def chat_body(body: Mapping[str, Any], unknown: UnknownFields) -> tuple[dict[str, Any], Rename]:
    """The body of a chat request that asks the same, and a function that puts errors back into this one's words.

    Args:
        body: of a request.
        unknown: is told of fields that are not known, where only this interface has the object.

    Raises:
        ApiError: what only this interface has, wrong or not supported.
    """
    given = {name: value for name, value in body.items() if value is not None}
    fields = BodyFields(given)
    for name, other in NAMES.items():
        if name in given:
            raise bad_request(f"{name} is a field of /v1/chat/completions; here it is {other}", name, "unknown_field")
    fields.refuse(REFUSED, ADVICE)
    instructions = fields.text("instructions")
    messages: list[Any] = [] if instructions is None else [{"role": "system", "content": instructions}]
    num_added = len(messages)
    messages += _messages(fields.get("input"))
    chat = {
        name: value
        for name, value in given.items()
        if name not in {"input", "instructions", "max_output_tokens", "text", *REFUSED, *IGNORED}
    }
    limit = fields.whole("max_output_tokens", 1)
    chat |= {"messages": messages, "max_completion_tokens": limit, **_format(fields)}
    BodyFields(fields.object("stream_options")).check_unknown(unknown, IGNORED_OF_STREAMS, "stream_options")
    include = fields.get("include")
    if include is not None and not (isinstance(include, list) and all(isinstance(name, str) for name in include)):
        raise fields.wrong("include", "a list of names")
    top_logprobs = fields.whole("top_logprobs", 0)
    if LOGPROBS in (include or ()) or top_logprobs:
        chat["logprobs"] = True

    def place(message: int, part: int | None) -> str:
        where = f"input[{message - num_added}]" if message >= num_added else "instructions"
        return where if part is None else f"{where}.content[{part}]"

    return chat, renaming(NAMES, place)


def _messages(given: Any) -> list[Any]:
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise bad_request(f"input is {quoted(given)}, expected text or a list of messages", "input")
    for number, item in enumerate(given):
        kind = item.get("type", "message") if isinstance(item, Mapping) else "message"
        if kind == "item_reference":
            raise bad_request(f"input[{number}] is a reference; {STATELESS}", f"input[{number}]")
        if kind != "message":
            raise bad_request(f"input[{number}] has type {quoted(kind)}, expected message", f"input[{number}].type")
    return list(given)


def _format(fields: BodyFields) -> dict[str, Any]:
    text = BodyFields(fields.object("text"))
    wanted = text.object("format")
    for name in text.unread(("verbosity",)):  # which may be meant to be format
        raise bad_request(f"text has {quoted(name)}, expected format", f"text.{name[:MAX_NAME_CHARS]}")
    return {} if text.get("format") is None else {"response_format": wanted}


class _Response:
    """The response object, as it is at the beginning, in between and at the end."""

    def __init__(self, model: str, asked: Mapping[str, Any], chat: "ChatRequest"):
        options = chat.answer.options
        text, metadata = asked.get("text") or {}, asked.get("metadata")
        self.message_id = new_id("msg")
        self._values: dict[str, Any] = {
            "id": new_id("resp"),
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "background": False,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "instructions": asked.get("instructions"),
            "max_output_tokens": asked.get("max_output_tokens"),
            "max_tool_calls": None,
            "model": model,
            "output": [],
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "store": False,
            "temperature": options.temperature,
            "text": {"format": text.get("format") or {"type": "text"}},
            "tool_choice": "none",
            "tools": [],
            "top_logprobs": options.logprobs or 0,
            "top_p": options.top_p,
            "truncation": "disabled",
            "usage": None,
            "user": asked.get("user"),
            "metadata": metadata if isinstance(metadata, dict) else {},
        }

    def begun(self) -> dict[str, Any]:
        """The object while the answer is being made."""
        return dict(self._values)

    def message(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        """The one item of the output."""
        return {"id": self.message_id, "type": "message", "status": status, "role": "assistant", "content": content}

    def ended(self, generation: "Generation", text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
        """The object with the whole answer."""
        is_cut = finish_reason(generation.latest[0]) == "length"
        status = "incomplete" if is_cut else "completed"
        return {
            **self._values,
            "status": status,
            "completed_at": None if is_cut else int(time.time()),
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "output": [self.message(status, [_text_part(text, logprobs)])],
            "usage": _usage(generation),
            "timings": timings(generation.jobs[0], generation.latest[0]),
        }


class _Events:
    """Numbers the events of a stream."""

    def __init__(self) -> None:
        self._number = 0

    def make(self, kind: str, **values: Any) -> bytes:
        """One server-sent event with its name."""
        data = {"type": kind, "sequence_number": self._number, **values}
        self._number += 1
        return f"event: {kind}\ndata: ".encode() + json_bytes(data) + b"\n\n"

    def error(self, error: ApiError) -> bytes:
        """The event of an error: as the interface has it, and with the object that makes OpenAI's clients raise."""
        return self.make("error", code=error.code, message=error.message, param=error.param, **error.body)


async def _answered(request: Request, chat: "ChatRequest", response: _Response) -> dict[str, Any]:
    async with AsyncExitStack() as held:
        generation = await begun(request, chat, held)
        answers = await AnswerTexts.of(generation)
        return response.ended(generation, answers.texts[0], answers.logprobs[0])


async def _parts(
    request: Request, generation: "Generation", response: _Response, events: _Events
) -> AsyncIterator[bytes]:
    state, make = request.app.state, events.make
    place = {"item_id": response.message_id, "output_index": 0, "content_index": 0}
    answers = AnswerTexts(1, generation.plan.processor)
    num_sent = 0
    yield make("response.created", response=response.begun())
    yield make("response.in_progress", response=response.begun())
    yield make("response.output_item.added", output_index=0, item=response.message("in_progress", []))
    yield make("response.content_part.added", **place, part=_text_part("", []))
    async for item in generation.events(state.settings.keep_alive_s):
        if not isinstance(item, tuple):
            yield KEEP_ALIVE
            continue
        answers.add(*item)
        if item[1].text:
            entries = answers.logprobs[0][num_sent:]
            num_sent += len(entries)
            yield make("response.output_text.delta", **place, delta=item[1].text, logprobs=entries)
    whole = response.ended(generation, answers.texts[0], answers.logprobs[0])
    message = whole["output"][0]
    part = message["content"][0]
    yield make("response.output_text.done", **place, text=part["text"], logprobs=part["logprobs"])
    yield make("response.content_part.done", **place, part=part)
    yield make("response.output_item.done", output_index=0, item=message)
    yield make(f"response.{whole['status']}", response=whole)


def _text_part(text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _usage(generation: "Generation") -> dict[str, Any]:
    tokens = usage(generation)
    return {
        "input_tokens": tokens["prompt_tokens"],
        "input_tokens_details": {"cache_write_tokens": 0, **tokens["prompt_tokens_details"]},
        "output_tokens": tokens["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens["total_tokens"],
    }
