"""uvicorn's HTTP/1.1 protocol with the timers and limits of connections that it lacks.

A silent client, half a header, a reader that stalls: each would hold its connection for good. What is refused here,
before there is a request, is refused in OpenAI's error form, too.
"""

import asyncio
import functools
import ipaddress
import json
import logging
import socket
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import get_remote_addr

from ..errors import ApiError, server_busy
from ..settings import ServerSettings

LOG = logging.getLogger("mlx_smolvlm.server")
CHECKS_PER_STALL = 4  # a reader that has stalled is found at most a quarter of the limit late
LINGER_S = 1.0  # for which a refused connection stays, so that the client reads why
MAX_LINGERING = 64  # refused connections that stay so at a time; others are closed at once


def guarded_protocol(settings: ServerSettings) -> Callable[..., asyncio.Protocol]:
    """What `uvicorn.Config` takes as `http`; the connections of one server are counted together."""
    return functools.partial(GuardedProtocol, settings=settings, places=Places(settings))


class Places:
    """Counts open connections, in all and by address.

    Loopback addresses count in all only: the programs of this machine share one, and so do all clients of a proxy.
    """

    def __init__(self, settings: ServerSettings):
        self._most = settings.max_connections
        self._most_per_address = settings.max_connections_per_address
        self._by_address: Counter[str] = Counter()
        self.num_lingering = 0

    def take(self, address: str) -> ApiError | None:
        """Count a connection, or return why there is no place for it."""
        if self._by_address.total() >= self._most:
            return server_busy(f"all {self._most} connections are taken; try again later")
        if self._by_address[address] >= self._most_per_address and not _is_loopback(address):
            return server_busy(f"{address} has {self._most_per_address} connections, which is the limit")
        self._by_address[address] += 1
        return None

    def give(self, address: str) -> None:
        """Count a connection no more."""
        self._by_address[address] -= 1
        if self._by_address[address] <= 0:
            del self._by_address[address]


class GuardedProtocol(H11Protocol):
    """One connection. Its arguments are those of `H11Protocol`, and what `guarded_protocol` gives."""

    def __init__(self, *arguments: Any, settings: ServerSettings, places: Places, **keywords: Any):
        super().__init__(*arguments, **keywords)
        self.conn = _Connection(settings.max_header_bytes)
        self.timeout_keep_alive = settings.idle_timeout_s  # type: ignore[assignment]  # call_later takes fractions
        self._settings = settings
        self._places = places
        self._address = ""
        self._header_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._unsent = 0  # bytes that the client had not taken at the last check
        self._num_stalled = 0  # checks since it took any

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, or refuse the connection and say why."""
        remote = get_remote_addr(transport)
        self._address = remote[0] if remote else ""
        refusal = self._places.take(self._address)
        if refusal is not None:
            transport.set_protocol(_Refusal(transport, refusal, self._places, self.loop))
            return
        super().connection_made(transport)
        open_socket = transport.get_extra_info("socket")
        if open_socket is not None and open_socket.family != getattr(socket, "AF_UNIX", None):
            # asyncio does so only where the listening socket names its protocol; without, answers wait 40 ms
            open_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch_header()
        self._watch_reader()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the timers, and leave the place to another."""
        self._places.give(self._address)
        for timer in (self._header_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, and watch how long a header takes."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._watch_header()
        elif self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
        if self.flow.read_paused and self.conn.their_state is h11.DONE:
            # The next request has come before the response. To read on is the only way to see that the client leaves.
            if len(self.conn.trailing_data[0]) > self._settings.max_header_bytes:
                self.transport.abort()
            else:
                self.flow.resume_reading()

    def resume_writing(self) -> None:
        """The client has taken what was held up."""
        self._num_stalled = 0
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, or has a header that is too large."""
        error = sys.exception()
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            code = "header_too_large" if status == 431 else "invalid_request"
            self.transport.write(_response(ApiError(status, code, f"this is not valid HTTP/1.1: {error}")))
        self.transport.close()

    def _should_upgrade(self) -> bool:
        return False  # nothing here speaks WebSocket; such a request is answered as any other

    def _watch_header(self) -> None:
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(self._settings.header_timeout_s, self._close_silent)

    def _close_silent(self) -> None:
        self._header_timer = None
        self.transport.abort()

    def _watch_reader(self) -> None:
        """Drop a client that takes nothing while output is held up, or while the connection is to close."""
        unsent = self.transport.get_write_buffer_size()
        is_held = self.flow.write_paused or self.transport.is_closing()
        self._num_stalled = self._num_stalled + 1 if unsent and is_held and unsent >= self._unsent else 0
        self._unsent = unsent
        if self._num_stalled > CHECKS_PER_STALL:
            LOG.info(
                "a client at %s read nothing for %g s and was dropped", self._address, self._settings.stalled_client_s
            )
            self.transport.abort()
            return
        self._stall_timer = self.loop.call_later(self._settings.stalled_client_s / CHECKS_PER_STALL, self._watch_reader)


class _Connection(h11.Connection):
    """Also refuses a header that is too large but came in one piece."""

    def __init__(self, max_header_bytes: int):
        super().__init__(h11.SERVER, max_header_bytes)
        self._max_header_bytes = max_header_bytes

    def next_event(self) -> Any:
        """As h11 has it, but refuses headers that are larger than allowed."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            num_bytes = len(event.target) + sum(len(name) + len(value) + 4 for name, value in event.headers)
            if num_bytes > self._max_header_bytes:
                raise h11.RemoteProtocolError(
                    f"the header is larger than {self._max_header_bytes} bytes", error_status_hint=431
                )
        return event


class _Refusal(asyncio.Protocol):
    """A connection that is told why it is refused. It is read until the client closes it: closed earlier, it would be
    reset, and the reason lost."""

    def __init__(self, transport: asyncio.Transport, error: ApiError, places: Places, loop: asyncio.AbstractEventLoop):
        self._places = places
        places.num_lingering += 1
        transport.write(_response(error))
        if places.num_lingering > MAX_LINGERING or not transport.can_write_eof():
            transport.close()
        else:
            transport.write_eof()
        self._timer = loop.call_later(LINGER_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        self._timer.cancel()
        self._places.num_lingering -= 1


def _response(error: ApiError) -> bytes:
    """A whole HTTP response, for where there is no request to respond to."""
    body = json.dumps(error.body).encode()
    lines = [
        f"HTTP/1.1 {error.status} {error.code}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "connection: close",
        *(f"{name}: {value}" for name, value in error.headers),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _is_loopback(address: str) -> bool:
    try:
        return not address or ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return True  # a socket of this machine's file system
