"""`/v1/chat/completions`, and how many tokens such a request has."""

import asyncio
import time
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..http.streaming import while_connected
from ..intake.chat_request import AnswerRequest, ChatRequest, read_chat_request
from ..intake.planning import Plan, planned_chat
from ..models import served_pair
from .answering import Generation, generated, too_late
from .completing import AnswerForm, Entries, completion, read_checked


async def chat_completions(request: Request) -> Response:
    """`POST /v1/chat/completions`."""
    chat = await read_checked(request, read_chat_request)
    return await completion(request, ChatForm(), chat.answer.stream, lambda held: begun(request, chat, held))


class ChatForm(AnswerForm):
    """Answers as messages of the assistant."""

    prefix = "chatcmpl"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def whole(self, text: str) -> dict[str, Any]:
        """As `AnswerForm.whole`."""
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def opening(self) -> dict[str, Any]:
        """As `AnswerForm.opening`."""
        return {"delta": {"role": "assistant", "content": ""}}

    def delta(self, text: str) -> dict[str, Any]:
        """As `AnswerForm.delta`."""
        return {"delta": {"content": text} if text else {}}

    def logprobs(self, entries: Entries, before: Entries) -> dict[str, Any]:
        """As `AnswerForm.logprobs`."""
        return {"content": list(entries), "refusal": None}


async def input_tokens(request: Request) -> Response:
    """`POST /v1/chat/completions/input_tokens`: what a request would cost, without an answer."""
    state = request.app.state
    chat = await read_checked(request, read_chat_request)
    pair = served_pair(request)

    async def count() -> dict[str, Any]:
        async with AsyncExitStack() as held:
            planning = planned_chat(chat.messages, chat.answer, pair, state.intake)
            plan = await _planned_in_time(request, planning, held)
            return {
                "object": "chat.completion.input_tokens",
                "input_tokens": plan.prompt_tokens,
                "image_tokens": plan.image_tokens,
                "max_model_len": plan.processor.config.context_length,
            }

    with state.engine.places(1):
        return JSONResponse(await while_connected(request, count()))


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
    plan = planned_chat(chat.messages, chat.answer, served_pair(request), state.intake)
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
