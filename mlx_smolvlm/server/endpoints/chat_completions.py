"""`/v1/chat/completions`, and how many tokens such a request has."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..http.streaming import DONE, KEEP_ALIVE, StreamedAnswer, event_bytes, held_while_connected, while_connected
from ..http.strict_json import read_body
from ..intake.chat_request import AnswerRequest, ChatRequest, read_chat_request
from ..intake.planning import Plan, planned_chat
from .answering import Generation, generated, too_late
from .answers import AnswerTexts, finish_reason, new_id, now_s, timings, usage


async def chat_completions(request: Request) -> Response:
    """`POST /v1/chat/completions`."""
    chat = await read_chat(request)
    if not chat.answer.stream:
        return JSONResponse(await while_connected(request, _answered(request, chat)))
    generation, held = await held_while_connected(request, lambda held: begun(request, chat, held))
    return StreamedAnswer(_chunks(request, generation), held)


async def input_tokens(request: Request) -> Response:
    """`POST /v1/chat/completions/input_tokens`: what a request would cost, without an answer."""
    state = request.app.state
    chat = await read_chat(request)

    async def count() -> dict[str, Any]:
        async with AsyncExitStack() as held:
            planning = planned_chat(chat.messages, chat.answer, state.engine, state.intake)
            plan = await _planned_in_time(request, planning, held)
            context = state.engine.processor.config.context_length
            return {
                "object": "chat.completion.input_tokens",
                "input_tokens": plan.prompt_tokens,
                "image_tokens": plan.image_tokens,
                "max_model_len": context,
            }

    with state.engine.places(1):
        return JSONResponse(await while_connected(request, count()))


async def read_chat(request: Request) -> ChatRequest:
    """The request's body, checked; the body itself, which may be large, is not kept.

    Raises:
        ApiError: it is refused.
    """
    state = request.app.state

    def read(body: dict[str, Any]) -> ChatRequest:
        state.model.check(body)
        return read_chat_request(body, state.settings)

    chat = await read_body(request, read)
    state.engine.check_ready()
    return chat


async def begun(request: Request, chat: ChatRequest, held: AsyncExitStack) -> Generation:
    """Take a place, open the media, and wait until the model begins with the prompt.

    Args:
        request: of the client.
        chat: what it asks.
        held: to be closed when the answers are no longer needed, which ends them.

    Raises:
        ApiError: there is no room, or the request cannot be answered.
    """
    state = request.app.state
    plan = planned_chat(chat.messages, chat.answer, state.engine, state.intake)
    return await begun_with(request, plan, chat.answer, held)


async def begun_with(
    request: Request, plan: AbstractAsyncContextManager[Plan], answer: AnswerRequest, held: AsyncExitStack
) -> Generation:
    """The same with a plan that is about to be made."""
    engine, started_s = request.app.state.engine, time.perf_counter()
    held.enter_context(engine.places(answer.n))
    planned = await _planned_in_time(request, plan, held)
    return await held.enter_async_context(generated(planned, engine, started_s))


async def _planned_in_time(request: Request, plan: AbstractAsyncContextManager[Plan], held: AsyncExitStack) -> Plan:
    limit_s = request.app.state.settings.request_timeout_s
    try:
        async with asyncio.timeout(limit_s):
            return await held.enter_async_context(plan)
    except TimeoutError:
        raise too_late(limit_s) from None


async def _answered(request: Request, chat: ChatRequest) -> dict[str, Any]:
    """The whole answer."""
    state = request.app.state
    async with AsyncExitStack() as held:
        generation = await begun(request, chat, held)
        answers = AnswerTexts(chat.answer.n, state.engine.processor)
        async for item in generation.events():
            if item is not None:
                answers.add(*item)
        wants_logprobs = chat.answer.options.logprobs is not None
        choices = [
            {
                "index": number,
                "message": {"role": "assistant", "content": answers.texts[number], "refusal": None},
                "finish_reason": finish_reason(generation.latest.get(number)),
                "logprobs": {"content": answers.logprobs[number], "refusal": None} if wants_logprobs else None,
            }
            for number in range(chat.answer.n)
        ]
        return {
            "id": new_id("chatcmpl"),
            "object": "chat.completion",
            "created": now_s(),
            "model": state.model.id,
            "choices": choices,
            "usage": usage(generation),
            "timings": timings(generation.jobs[0], generation.latest[0]),
        }


async def _chunks(request: Request, generation: Generation) -> AsyncIterator[bytes]:
    """The answer as server-sent events."""
    state, answer = request.app.state, generation.plan.answer
    head = {"id": new_id("chatcmpl"), "object": "chat.completion.chunk", "created": now_s(), "model": state.model.id}
    unset: dict[str, Any] = {"usage": None} if answer.include_usage else {}
    wants_logprobs = answer.options.logprobs is not None
    pending: list[list[dict[str, Any]]] = [[] for _ in range(answer.n)]

    def chunk(number: int, delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
        logprobs = None
        if wants_logprobs and pending[number]:
            logprobs = {"content": list(pending[number]), "refusal": None}
            pending[number].clear()
        choice = {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return event_bytes({**head, "choices": [choice], **unset, **more})

    texts = AnswerTexts(answer.n, state.engine.processor)
    for number in range(answer.n):
        yield chunk(number, {"role": "assistant", "content": ""})
    async for item in generation.events(state.settings.keep_alive_s):
        if item is None:
            yield KEEP_ALIVE
            continue
        number, event = item
        pending[number] += texts.add(number, event)
        if event.text:
            yield chunk(number, {"content": event.text})
        if event.finish_reason is not None:
            yield chunk(number, {}, finish_reason(event), timings=timings(generation.jobs[number], event))
    if answer.include_usage:
        yield event_bytes({**head, "choices": [], "usage": usage(generation)})
    yield DONE
