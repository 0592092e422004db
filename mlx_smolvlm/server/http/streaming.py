"""Answers on their way out: one JSON object, or a stream of events; in both cases they end when the client leaves."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..errors import ApiError, internal_error

T = TypeVar("T")
LOG = logging.getLogger("mlx_smolvlm.server")
KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}  # proxies are not to hold it back


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do something for a client, and cancel it when the client leaves. The body has been read before.

    Raises:
        ClientDisconnect: the client has left.
    """
    doing = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait({doing, watching}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise ClientDisconnect
    finally:
        for task in (doing, watching):
            task.cancel()
        await asyncio.gather(doing, watching, return_exceptions=True)  # their media are released in the end


async def held_while_connected(
    request: Request, begin: Callable[[AsyncExitStack], Coroutine[Any, Any, T]]
) -> tuple[T, AsyncExitStack]:
    """What `begin` returns, and what it holds, which is to be closed in the end. It is closed here if that fails.

    Raises:
        ClientDisconnect: the client has left.
    """
    held = AsyncExitStack()
    try:
        return await while_connected(request, begin(held)), held
    except BaseException:
        await held.aclose()
        raise


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class StreamedAnswer(Response):
    """A response whose parts are sent as they come.

    The first part is waited for before anything is sent, so that an error before it has its own status. A later one is
    sent as `error_part`, and ends the response.
    """

    def __init__(
        self,
        parts: AsyncIterator[bytes],
        held: AsyncExitStack,
        error_part: Callable[[ApiError], bytes] | None = None,
        media_type: str = "text/event-stream",
    ):
        """
        Args:
            parts: what to send.
            held: closed at the end in any case, which ends the answers.
            error_part: from an `ApiError` to what is sent for it; None for an event of server-sent events.
            media_type: of the response.
        """
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self.body = b""
        self.init_headers(STREAM_HEADERS)
        del self.headers["content-length"]
        self._parts = parts
        self._held = held
        self._error_part = error_part or (lambda error: event_bytes(error.body))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all, or end when the client leaves."""
        sending = asyncio.ensure_future(self._send(send))
        watching = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({sending, watching}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in (sending, watching):
                task.cancel()
            await asyncio.gather(sending, watching, return_exceptions=True)
            await self._held.aclose()

    async def _send(self, send: Send) -> None:
        is_begun = False
        try:
            async for part in self._parts:
                if not is_begun:
                    is_begun = True
                    start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                    await send(start)
                await send({"type": "http.response.body", "body": part, "more_body": True})
        except ApiError as error:
            if not is_begun:
                raise
            await send({"type": "http.response.body", "body": self._error_part(error), "more_body": True})
        except OSError:  # the connection broke
            return
        except Exception:
            if not is_begun:
                raise
            LOG.exception("a stream failed")
            part = self._error_part(internal_error())
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def event_bytes(data: Any) -> bytes:
    """One server-sent event, on one line."""
    return b"data: " + json_bytes(data) + b"\n\n"


def json_bytes(data: Any) -> bytes:
    """JSON as it is sent: UTF-8, in one line."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
