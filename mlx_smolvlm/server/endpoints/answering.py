"""The answers of one request while the engine makes them: begun, their events in order, and ended in any case."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from ...engine.prompt_progress import PromptProgress
from ..errors import NO_RETRY, ApiError, server_busy
from ..intake.planning import Plan

if TYPE_CHECKING:
    from ...engine.row import RowEvent
    from ..engine_job import Delivered, EngineJob
    from ..engine_thread import Engine


class Generation:
    """The answers of a request. The first one reads the prompt; the others begin when it is read, and copy it.

    Attributes:
        plan: what is asked.
        jobs: of the answers begun so far, in order.
        latest: the latest event of each of them.
        started_s: `time.perf_counter` when the request came.
    """

    def __init__(self, plan: Plan, engine: "Engine", started_s: float):
        self.plan = plan
        self.jobs: list[EngineJob] = []
        self.latest: dict[int, RowEvent] = {}
        self.started_s = started_s
        self._engine = engine
        self._events: asyncio.Queue[tuple[int, Delivered]] = asyncio.Queue()

    async def begin(self) -> None:
        """Wait until the model begins with the prompt.

        Raises:
            ApiError: it never will, or not in time.
        """
        self._add()
        limit_s = min(self._engine.settings.queue_timeout_s, self._left_s)
        try:
            async with asyncio.timeout(limit_s):
                _, event = await self._events.get()
        except TimeoutError:
            if self._left_s <= 0:
                raise too_late(self._engine.settings.request_timeout_s) from None
            self._engine.metrics.refused("queue_timeout")
            raise server_busy(f"no answer could be begun within {limit_s:g} s; try again") from None
        if isinstance(event, ApiError):
            raise event

    async def events(
        self, silence_s: float | None = None
    ) -> "AsyncIterator[tuple[int, RowEvent] | PromptProgress | None]":
        """What happens: (number of the answer, event), or how much of the prompt is read, if that was asked for. None
        whenever nothing has happened for `silence_s` seconds.

        Raises:
            ApiError: an answer has failed, or they take too long.
        """
        num_ended = 0
        while num_ended < self.plan.answer.n:
            limit_s = self._left_s if silence_s is None else min(silence_s, self._left_s)
            try:
                async with asyncio.timeout(max(limit_s, 0)):
                    number, event = await self._events.get()
            except TimeoutError:
                if self._left_s <= 0:
                    raise too_late(self._engine.settings.request_timeout_s) from None
                yield None
                continue
            if isinstance(event, ApiError):
                raise event
            if event is None:  # another answer begins
                continue
            if isinstance(event, PromptProgress):
                yield event
                continue
            while len(self.jobs) < self.plan.answer.n:
                self._add()
            self.latest[number] = event
            num_ended += event.finish_reason is not None
            yield number, event

    def close(self) -> None:
        """End what is still in flight."""
        for number, job in enumerate(self.jobs):
            if number not in self.latest or self.latest[number].finish_reason is None:
                self._engine.cancel(job)

    @property
    def _left_s(self) -> float:
        return self._engine.settings.request_timeout_s - (time.perf_counter() - self.started_s)

    def _add(self) -> None:
        options, number = self.plan.answer.options, len(self.jobs)
        if number and options.seed is not None:
            options = replace(options, seed=(options.seed + number) % 2**64)
        self.jobs.append(
            self._engine.submit(
                self.plan.request,
                options,
                lambda event: self._events.put_nowait((number, event)),
                tells_progress=self.plan.answer.return_progress and not number,
            )
        )
        if self._engine.state == "dead":  # since the request was let in: nobody may see what was submitted
            raise ApiError(503, "engine_dead", "the engine has ended; restart the server, whose log says why")


def too_late(limit_s: float) -> ApiError:
    """The 504 for a request that takes longer than `request_timeout_s`."""
    message = f"the answer was not done within {limit_s:g} s; ask for fewer tokens, or send fewer or smaller media"
    return ApiError(504, "timeout", message, headers=[NO_RETRY])


@asynccontextmanager
async def generated(plan: Plan, engine: "Engine", started_s: float) -> AsyncIterator[Generation]:
    """The answers to a plan, begun; whatever is in flight at the end of the block is cancelled.

    Raises:
        ApiError: they cannot be begun.
    """
    generation = Generation(plan, engine, started_s)
    try:
        await generation.begin()
        yield generation
    finally:
        generation.close()
