"""Bytes of a live source: pipes, sockets and HTTP answers as files that can be given up at any moment.

FFmpeg waits for its own connections where nothing but a time limit ends the wait. What is read here waits in short
steps instead, so that closing takes effect at once. Standard library only.
"""

import contextlib
import io
import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from ...options import FetchPolicy
from ..fetch import REDIRECT_STATUSES, checked_parts, request
from ..urls import redact_url

STEP_S = 0.05  # how long a wait may last before it is asked whether it is still wanted
CHUNK_BYTES = 64 * 1024
MAX_REDIRECTS = 5


class Closed(Exception):
    """The reader was closed while it waited."""


class Stalled(OSError):
    """Nothing came for longer than is allowed."""


class Patience:
    """Waits that end when `closing` is set, or when nothing has come for `stall_timeout_s` seconds."""

    def __init__(self, closing: Event, stall_timeout_s: float):
        self.closing = closing
        self.stall_timeout_s = stall_timeout_s

    def wait(self, handle: Any, *, to_write: bool = False) -> None:
        """Wait until a socket or file descriptor is ready. Raises Closed or Stalled."""
        poll = select.poll()
        poll.register(handle, select.POLLOUT if to_write else select.POLLIN)
        for _ in self.steps():
            if poll.poll(STEP_S * 1000):
                return

    def steps(self) -> Iterator[None]:
        """For each attempt one turn, until `closing` is set or time is up. Raises Closed or Stalled."""
        deadline = time.monotonic() + self.stall_timeout_s
        while time.monotonic() < deadline:
            if self.closing.is_set():
                raise Closed
            yield
        raise Stalled(f"nothing came for {self.stall_timeout_s:g} s")


class PipeFile:
    """Standard input or a named pipe. `read` returns what there is."""

    def __init__(self, path: Path | None, patience: Patience):
        """`path` is a named pipe; None is standard input."""
        self._patience = patience
        self._is_named = path is not None
        # Without O_NONBLOCK, opening a named pipe waits for somebody to write.
        self._handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if path is not None else os.dup(0)
        self._has_begun = False

    def read(self, max_bytes: int) -> bytes:
        """At most `max_bytes`, nothing at the end. Raises Closed or Stalled."""
        for _ in self._patience.steps():
            self._patience.wait(self._handle)
            with contextlib.suppress(BlockingIOError):  # another process took it
                data = os.read(self._handle, max_bytes)
                if data or self._has_begun or not self._is_named:
                    self._has_begun = True
                    return data
            self._patience.closing.wait(STEP_S)  # a named pipe that nobody writes to yet
        return b""  # not reached: the last step raises

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._handle)


class SocketFile(io.RawIOBase):
    """A connected socket, as `fetch.request` and FFmpeg read it."""

    def __init__(self, connection: socket.socket, patience: Patience):
        super().__init__()
        self._connection, self._patience = connection, patience

    def readable(self) -> bool:
        """Yes: the buffered reader asks."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Receive what there is."""
        for _ in self._patience.steps():
            waits_to_write = False
            try:
                return self._connection.recv_into(buffer)
            except OSError as error:
                waits_to_write = _would_block(error)
            self._patience.wait(self._connection, to_write=waits_to_write)
        return 0  # not reached: the last step raises

    def sendall(self, data: bytes) -> None:
        """Send a request."""
        left = memoryview(data)
        while left:
            try:
                left = left[self._connection.send(left) :]
            except OSError as error:
                self._patience.wait(self._connection, to_write=_would_block(error, sending=True))

    def makefile(self, mode: str) -> io.BufferedReader:
        """The answer, buffered; http.client reads from here."""
        return io.BufferedReader(self, CHUNK_BYTES)

    def close(self) -> None:
        """Do nothing: http.client closes its socket before it reads the body. Its opener closes the real one."""


class ReadableFile:
    """What FFmpeg reads from: a `read` that returns what there is, of an HTTP answer or a socket."""

    def __init__(self, read: Any):
        self.read = read


@contextlib.contextmanager
def open_pipe(path: Path | None, patience: Patience) -> Iterator[PipeFile]:
    """Standard input (None) or a named pipe."""
    with contextlib.closing(PipeFile(path, patience)) as file:
        yield file


@contextlib.contextmanager
def open_socket(url: str, patience: Patience) -> Iterator[ReadableFile]:
    """What arrives over `tcp://host:port` or at `udp://[group or address]:port`."""
    parts = urlsplit(url)
    if parts.port is None:
        raise ValueError(f"{redact_url(url)} names no port, expected {parts.scheme}://host:port")
    opened = _bind(parts) if parts.scheme == "udp" else connect(parts.hostname or "", parts.port, patience)
    with opened as connection:
        file = SocketFile(connection, patience)
        yield ReadableFile(file.read)


@contextlib.contextmanager
def _as_os_errors() -> Iterator[None]:
    from http.client import HTTPException

    try:
        yield
    except HTTPException as error:
        raise OSError(f"the answer is not valid HTTP, or broke off ({type(error).__name__})") from None


@contextlib.contextmanager
def open_http(url: str, patience: Patience) -> Iterator[tuple[ReadableFile, int | None, str]]:
    """The body behind an http(s) address, its length if the server states one, and its media type.

    Redirects are followed, but never from https to http. The body has no limit, as live streams have none.
    """
    policy, target = FetchPolicy(), url
    for _ in range(MAX_REDIRECTS + 1):
        name = redact_url(target)
        parts = checked_parts(target, name, policy)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        with connect(parts.hostname or "", port, patience, is_tls=parts.scheme == "https") as connection:
            with _as_os_errors():
                response = request(SocketFile(connection, patience), parts)
            location = response.getheader("Location")
            if response.status not in REDIRECT_STATUSES or not location:
                if response.status != 200:
                    raise ValueError(f"{name}: the server answered {response.status}; check the address")
                body = ReadableFile(_as_os_errors()(response.read1))
                yield body, response.length, response.getheader("Content-Type", "")
                return
        target = urljoin(target, quote(location, safe="%/:=&?~#+!$,;'@()*[]", encoding="iso-8859-1"))
        if parts.scheme == "https" and target[:5].lower() == "http:":
            raise ValueError(f"{name}: refused, since https may not turn into http")
    raise ValueError(f"{redact_url(url)}: more than {MAX_REDIRECTS} redirects; use the final address")


@contextlib.contextmanager
def connect(host: str, port: int, patience: Patience, *, is_tls: bool = False) -> Iterator[socket.socket]:
    """A connection to the first of the host's addresses that answers; only looking up the name cannot be given up."""
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with contextlib.ExitStack() as opened:
            connection = opened.enter_context(socket.socket(family, kind, protocol))
            connection.setblocking(False)
            try:
                if connection.connect_ex(address):
                    patience.wait(connection, to_write=True)
                    if error := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                        raise OSError(error, os.strerror(error))
                if is_tls:
                    connection = opened.enter_context(_secured(connection, host, patience))
            except OSError as error:
                failure = error
                continue
            yield connection
            return
    raise failure


def _secured(connection: socket.socket, host: str, patience: Patience) -> Any:
    import ssl

    secured = ssl.create_default_context().wrap_socket(connection, server_hostname=host, do_handshake_on_connect=False)
    while True:
        try:
            secured.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            patience.wait(secured, to_write=_would_block(error))
        else:
            return secured


def _bind(parts: SplitResult) -> socket.socket:
    """A UDP socket at an address of this machine, or in a multicast group; `udp://@:1234` is any address."""
    host = (parts.hostname or "0.0.0.0").lstrip("@")
    family, _, _, _, address = socket.getaddrinfo(host, parts.port, type=socket.SOCK_DGRAM)[0]
    connection = socket.socket(family, socket.SOCK_DGRAM)
    try:
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024**2)  # holds a burst while frames are made
        connection.bind(address)
        if family == socket.AF_INET and 224 <= int(str(address[0]).partition(".")[0]) < 240:
            group = socket.inet_aton(str(address[0])) + socket.inet_aton("0.0.0.0")  # on any interface
            connection.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    except OSError:
        connection.close()
        raise
    return connection


def _would_block(error: OSError, *, sending: bool = False) -> bool:
    """Whether the socket is to be waited for to write (else to read); other errors are raised."""
    if isinstance(error, BlockingIOError):
        return sending
    reason = type(error).__name__
    if reason in ("SSLWantReadError", "SSLWantWriteError"):
        return reason == "SSLWantWriteError"
    raise error
