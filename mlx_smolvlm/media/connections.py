"""Connections whose waits end by a time limit, or when they are no longer wanted. Standard library only.

Waits for sockets are made of short steps; sockets' own time-outs would start again with each byte.
"""

import contextlib
import errno
import io
import math
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from threading import Event, Thread
from typing import Any

STEP_S = 0.05  # how long a wait may last before it is asked whether it is still wanted
CHUNK_BYTES = 64 * 1024


class Closed(Exception):
    """The reader was closed while it waited."""


class Stalled(TimeoutError):
    """Nothing came for longer than is allowed."""


class Patience:
    """Waits that end when nothing has come for `stall_timeout_s` seconds, at a moment, or when no longer wanted."""

    def __init__(
        self,
        stall_timeout_s: float,
        *,
        until_s: float = math.inf,
        closing: Event | None = None,
        check_cancelled: Callable[[], None] = lambda: None,
    ):
        """
        Args:
            stall_timeout_s: seconds of a wait in which nothing comes.
            until_s: a moment of `time.monotonic`.
            closing: ends a wait when set.
            check_cancelled: called in short steps while waiting; it may raise to stop.
        """
        self.stall_timeout_s = stall_timeout_s
        self.until_s = until_s
        self.closing = closing or Event()
        self.check_cancelled = check_cancelled

    def wait(self, handle: Any, *, to_write: bool = False) -> None:
        """Wait until a socket or file descriptor is ready. Raises Closed or Stalled."""
        poll = select.poll()
        poll.register(handle, select.POLLOUT if to_write else select.POLLIN)
        for left_s in self.steps():
            if poll.poll(math.ceil(1000 * min(STEP_S, left_s))):
                return

    def steps(self) -> Iterator[float]:
        """For each attempt the seconds left, until `closing` is set or time is up. Raises Closed or Stalled."""
        deadline_s = min(time.monotonic() + self.stall_timeout_s, self.until_s)
        while (left_s := deadline_s - time.monotonic()) > 0:
            if self.closing.is_set():
                raise Closed
            self.check_cancelled()
            yield left_s
        raise Stalled(f"nothing came for {self.stall_timeout_s:g} s")


class SocketFile(io.RawIOBase):
    """A connected socket that does not block, as http.client and FFmpeg read it."""

    def __init__(self, connection: socket.socket, patience: Patience):
        super().__init__()
        self._connection, self._patience = connection, patience

    def readable(self) -> bool:
        """Yes: the buffered reader asks."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Receive what there is."""
        for _ in self._patience.steps():
            try:
                return self._connection.recv_into(buffer)
            except OSError as error:
                self._patience.wait(self._connection, to_write=_waits_to_write(error))
        return 0  # not reached: the last step raises

    def sendall(self, data: bytes) -> None:
        """Send a request."""
        left = memoryview(data)
        while left:
            try:
                left = left[self._connection.send(left) :]
            except OSError as error:
                self._patience.wait(self._connection, to_write=_waits_to_write(error, sending=True))

    def makefile(self, mode: str) -> io.BufferedReader:
        """The answer, buffered; http.client reads from here."""
        return io.BufferedReader(self, CHUNK_BYTES)

    def close(self) -> None:
        """Do nothing: http.client closes its socket before it reads the body. Its opener closes the real one."""


@contextlib.contextmanager
def connect(
    host: str,
    port: int,
    patience: Callable[[], Patience],
    *,
    is_tls: bool = False,
    check_address: Callable[[str], None] = lambda _: None,
) -> Iterator[socket.socket]:
    """A connection to the first of the host's addresses that answers.

    Args:
        host, port: where to. The certificate of a TLS connection is verified against the system's store.
        patience: called for looking up the name, and for each address.
        check_address: called with each address, as text, before it is connected to; it may raise to refuse.

    Raises:
        OSError: no address answers; Stalled and what `check_address` raises included.
        Closed: no longer wanted.
    """
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in _looked_up(host, port, patience()):
        check_address(str(address[0]))
        waiting = patience()
        with contextlib.ExitStack() as opened:
            try:
                connection = opened.enter_context(socket.socket(family, kind, protocol))
                connection.setblocking(False)
                error = connection.connect_ex(address)
                if error == errno.EINPROGRESS:
                    waiting.wait(connection, to_write=True)
                    error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    raise OSError(error, os.strerror(error))
                if is_tls:
                    connection = opened.enter_context(secured(connection, host, waiting))
            except OSError as refused:
                failure = refused
                continue
            yield connection
            return
    raise failure


def _looked_up(host: str, port: int, patience: Patience) -> list[tuple[Any, ...]]:
    """The addresses of a host. A thread asks, since the system cannot be told to give up; it ends with the answer."""
    found: Future[list[tuple[Any, ...]]] = Future()

    def ask() -> None:
        try:
            found.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except BaseException as error:  # whatever it is, it belongs to who waits
            found.set_exception(error)

    Thread(target=ask, name="mlx_smolvlm look-up", daemon=True).start()
    for left_s in patience.steps():
        if wait([found], min(STEP_S, left_s)).done:
            break
    return found.result()


def secured(connection: socket.socket, host: str, patience: Patience) -> Any:
    """The connection with TLS, its certificate verified against the system's store. Raises OSError."""
    import ssl

    wrapped = ssl.create_default_context().wrap_socket(connection, server_hostname=host, do_handshake_on_connect=False)
    try:
        while True:
            try:
                wrapped.do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
                patience.wait(wrapped, to_write=_waits_to_write(error))
            else:
                return wrapped
    except BaseException:
        wrapped.close()
        raise


def _waits_to_write(error: OSError, *, sending: bool = False) -> bool:
    """Whether the socket is to be waited for to write (else to read); other errors are raised."""
    if isinstance(error, BlockingIOError):
        return sending
    reason = type(error).__name__
    if reason in ("SSLWantReadError", "SSLWantWriteError"):
        return reason == "SSLWantWriteError"
    raise error
