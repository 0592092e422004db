"""The body of a request as it comes in: bounded in bytes and time, and read to its end before the connection closes."""

import asyncio
import contextlib

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Send

from ..errors import NO_RETRY, ApiError, server_busy
from ..settings import MIB, ServerSettings

SMALL_BODY = MIB  # bytes that any request may send, whatever others hold


class HeldBytes:
    """The bytes of all requests that have not been answered yet.

    Attributes:
        count: so many now.
    """

    def __init__(self, most: int):
        self._most = most
        self.count = 0

    def add(self, num_bytes: int, num_own: int) -> None:
        """Count more bytes of a request that has `num_own` with them.

        Raises:
            ApiError: 503, they are too many.
        """
        self.count += num_bytes
        if self.count > self._most and num_own > SMALL_BODY:
            raise server_busy(f"requests in flight hold {self._most / MIB:.0f} MiB, which is the most; try again")


class RequestBody:
    """The receiving side of one request.

    A connection that is closed while the client still sends is reset, and the client loses the response that says why.
    So a response that is complete before the body is held open, and what comes is read and dropped for as long as it
    does come, but for no more than `body_timeout_s`.

    Attributes:
        is_complete: whether nothing more will come.
    """

    def __init__(self, headers: Headers, receive: Receive, settings: ServerSettings, held: HeldBytes):
        self._receive = receive
        self._held = held
        self._num_held = 0
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._num_bytes = 0
        self._awaits_leave = "expect" in headers
        self.is_complete = "transfer-encoding" not in headers and headers.get("content-length", "0") == "0"

    async def receive(self) -> Message:
        """The next ASGI message.

        Raises:
            ApiError: 413 for too many bytes, 408 for too much time, 503 for too many bytes of all requests.
        """
        if self.is_complete:
            return await self._receive()
        settings = self._settings
        allowed_s = settings.body_timeout_s + settings.body_timeout_s_per_mib * self._num_bytes / MIB
        try:
            async with asyncio.timeout_at(self._started + allowed_s):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(
                408,
                "request_timeout",
                f"the request body did not come within {allowed_s:.0f} seconds",
                headers=[NO_RETRY],
            ) from None
        self._note(message)
        if self._num_bytes > settings.max_body_bytes:
            raise too_large(settings)
        num_new = self._num_bytes - self._num_held
        self._num_held = self._num_bytes
        self._held.add(num_new, self._num_bytes)
        return message

    def release(self) -> None:
        """Count its bytes no more."""
        self._held.count -= self._num_held
        self._num_held = 0

    async def send_last(self, message: Message, send: Send) -> None:
        """Send the last part of the response, and read what still comes of the request."""
        if self.is_complete or self._awaits_leave:
            await send(message)
            return
        self.release()
        await send({**message, "more_body": True})  # the client has all of the response now
        settings, end = self._settings, self._loop.time() + self._settings.body_timeout_s
        with contextlib.suppress(TimeoutError):
            while not self.is_complete:
                async with asyncio.timeout_at(min(end, self._loop.time() + settings.idle_timeout_s)):
                    self._note(await self._receive())
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _note(self, message: Message) -> None:
        self._num_bytes += len(message.get("body", b""))
        self.is_complete = message["type"] == "http.disconnect" or not message.get("more_body", False)


def too_large(settings: ServerSettings) -> ApiError:
    """The 413 for a body above `max_body_bytes`."""
    return ApiError(
        413,
        "request_too_large",
        f"the request body is larger than {settings.max_body_bytes / MIB:.0f} MiB; send fewer or smaller media",
    )
