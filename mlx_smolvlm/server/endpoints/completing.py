"""What OpenAI's two completion endpoints do alike: send answers whole or in chunks, each endpoint in its own form."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...engine.prompt_progress import PromptProgress
from ..http.streaming import DONE, KEEP_ALIVE, StreamedAnswer, event_bytes, held_while_connected, while_connected
from ..http.strict_json import read_body
from ..settings import ServerSettings
from .answering import Generation
from .answers import AnswerTexts, finish_reason, new_id, now_s, timings, usage

T = TypeVar("T")
Entries = Sequence[dict[str, Any]]


class AnswerForm(ABC):
    """How an endpoint writes answers.

    Attributes:
        prefix: of identifiers.
        whole_object, chunk_object: `object` of an answer, and of a chunk of it.
        has_prompt_in_choices: whether the tokens of the prompt stand in each choice.
    """

    prefix: str
    whole_object: str
    chunk_object: str
    has_prompt_in_choices = False

    @abstractmethod
    def whole(self, text: str) -> dict[str, Any]:
        """What a choice has of the text of an answer."""

    @abstractmethod
    def opening(self) -> dict[str, Any]:
        """What the first chunk of an answer has."""

    @abstractmethod
    def delta(self, text: str) -> dict[str, Any]:
        """What another chunk has, of some text or none."""

    @abstractmethod
    def logprobs(self, entries: Entries, before: Entries) -> dict[str, Any]:
        """Log probabilities of tokens, and those of the same answer before."""


async def read_checked(request: Request, read: Callable[[Mapping[str, Any], ServerSettings], T]) -> T:
    """What `read` makes of the request's body; the body itself, which may be large, is not kept.

    Raises:
        ApiError: it is refused, or nothing can be answered.
    """
    state = request.app.state

    def checked(body: dict[str, Any]) -> T:
        request.state.served = state.models.find(body)
        return read(body, state.settings)

    asked = await read_body(request, checked)
    state.engine.check_ready()
    return asked


async def completion(
    request: Request,
    form: AnswerForm,
    streams: bool,
    begin: Callable[[AsyncExitStack], Coroutine[Any, Any, Generation]],
) -> Response:
    """The response to a request that has been checked.

    Args:
        request: of the client.
        form: of the endpoint.
        streams: whether the answers come as they are made.
        begin: begins the answers, which end when what it is given is closed.

    Raises:
        ApiError: they cannot be begun, or have failed.
    """
    if not streams:
        return JSONResponse(await while_connected(request, _answered(request, form, begin)))
    generation, held = await held_while_connected(request, begin)
    return StreamedAnswer(_chunks(request, form, generation), held)


async def _answered(
    request: Request, form: AnswerForm, begin: Callable[[AsyncExitStack], Coroutine[Any, Any, Generation]]
) -> dict[str, Any]:
    """The whole answer."""
    async with AsyncExitStack() as held:
        generation = await begin(held)
        answers = await AnswerTexts.of(generation)
        answer, prompt_ids = generation.plan.answer, list(generation.latest[0].prompt_ids)
        in_choice = answer.return_token_ids and form.has_prompt_in_choices
        choices = [
            {
                "index": number,
                **form.whole(text),
                "finish_reason": finish_reason(generation.latest.get(number)),
                "logprobs": form.logprobs(logprobs, ()) if answer.options.logprobs is not None else None,
                **({"prompt_token_ids": prompt_ids} if in_choice else {}),
                **({"token_ids": token_ids} if answer.return_token_ids else {}),
            }
            for number, (text, logprobs, token_ids) in enumerate(answers)
        ]
        return {
            "id": new_id(form.prefix),
            "object": form.whole_object,
            "created": now_s(),
            "model": request.state.served.id,
            "choices": choices,
            "usage": usage(generation),
            "timings": timings(generation.jobs[0], generation.latest[0]),
            **({"prompt_token_ids": prompt_ids} if answer.return_token_ids and not in_choice else {}),
        }


async def _chunks(request: Request, form: AnswerForm, generation: Generation) -> AsyncIterator[bytes]:
    """The answer as server-sent events."""
    state, answer = request.app.state, generation.plan.answer
    model = request.state.served.id
    head = {"id": new_id(form.prefix), "object": form.chunk_object, "created": now_s(), "model": model}
    unset: dict[str, Any] = {"usage": None} if answer.include_usage else {}
    texts = AnswerTexts(answer.n, generation.plan.processor)
    sent = [(0, 0)] * answer.n  # log probabilities and tokens of each answer

    def chunk(number: int, content: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
        entries, token_ids = texts.logprobs[number], texts.token_ids[number]
        num_entries, num_ids = sent[number]
        sent[number] = len(entries), len(token_ids)
        new = entries[num_entries:]
        logprobs = form.logprobs(new, entries[:num_entries]) if new else None
        choice = {"index": number, **content, "logprobs": logprobs, "finish_reason": reason}
        if answer.return_token_ids:
            choice["token_ids"] = token_ids[num_ids:]
        return event_bytes({**head, "choices": [choice], **unset, **more})

    def opening(number: int, content: dict[str, Any], prompt_ids: Sequence[int]) -> bytes:
        named: dict[str, Any] = {"prompt_token_ids": list(prompt_ids)} if answer.return_token_ids else {}
        if form.has_prompt_in_choices:
            return chunk(number, {**content, **named})
        return chunk(number, content, **(named if number == 0 else {}))

    planned = generation.plan.prompt_ids
    for number in range(answer.n):
        yield opening(number, form.opening(), planned)
    async for item in generation.events(state.settings.keep_alive_s):
        if item is None:
            yield KEEP_ALIVE
            continue
        if isinstance(item, PromptProgress):
            yield chunk(0, form.delta(""), prompt_progress=_progress(item))
            continue
        number, event = item
        is_other = answer.return_token_ids and event.completion_tokens == 1 and list(event.prompt_ids) != planned
        if is_other:  # a video broke off while it was read, and its prompt is shorter than planned
            yield opening(number, form.delta(""), event.prompt_ids)
        texts.add(number, event)
        spent: dict[str, Any] = {"timings": timings(generation.jobs[number], event)} if answer.timings_per_token else {}
        if event.text:
            yield chunk(number, form.delta(event.text), **spent)
        if event.finish_reason is not None:
            spent = {"timings": timings(generation.jobs[number], event)}
            yield chunk(number, form.delta(""), finish_reason(event), **spent)
    if answer.include_usage:
        yield event_bytes({**head, "choices": [], "usage": usage(generation)})
    yield DONE


def _progress(progress: PromptProgress) -> dict[str, int]:
    """Under llama.cpp's names."""
    return {
        "total": progress.total,
        "cache": progress.cached,
        "processed": progress.processed,
        "time_ms": round(progress.seconds * 1000),
    }
