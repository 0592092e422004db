"""Bytes of a live source: pipes, sockets and HTTP answers as files that can be given up at any moment.

FFmpeg waits for its own connections where nothing but a time limit ends the wait. What is read here waits in short
steps instead, so that closing takes effect at once. Standard library only.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ...options import DEFAULT_POLICY, FetchPolicy
from ..connections import STEP_S, Patience, SocketFile, connect
from ..fetch import open_response
from ..urls import redact_url

HEAD_BYTES = 4096
JPEG = b"\xff\xd8\xff"
BARE = (b"\0\0\0\1", b"\0\0\1\x67", b"\0\0\1\x27", b"\0\0\1\x09")


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


class ReadableFile:
    """What FFmpeg reads from: a `read` that returns what there is, of an HTTP answer or a socket.

    Attributes:
        address: where an HTTP answer came from, after all redirects; else empty.
    """

    def __init__(self, read: Any, address: str = ""):
        self.read = read
        self.address = address


class HeardFile:
    """A file that tells when bytes come, and remembers the first of them."""

    def __init__(self, file: Any, on_data: Callable[[], None]):
        self.head = b""
        self._file = file
        self._on_data = on_data
        self._ahead = b""  # looked at, not yet read

    def untimed_format(self) -> str | None:
        """FFmpeg's name of the format, if its first bytes, which are waited for, are of one without times.

        "" is bare H.264 or HEVC, which FFmpeg tells apart; None is any other.
        """
        if not self.head:
            self._ahead = self._receive(HEAD_BYTES)
        if self.head.lstrip(b"\r\n").startswith(b"--"):
            return "mpjpeg"  # parts with a boundary between them
        if self.head.startswith(JPEG) or self.head[:256].lower().lstrip().startswith(b"content-"):
            return "mjpeg"
        return "" if self.head.startswith(BARE) else None

    def read(self, max_bytes: int) -> bytes:
        """What there is, at most `max_bytes`."""
        if self._ahead:
            data, self._ahead = self._ahead[:max_bytes], self._ahead[max_bytes:]
            return data
        return self._receive(max_bytes)

    def _receive(self, max_bytes: int) -> bytes:
        data: bytes = self._file.read(max_bytes)
        if len(self.head) < HEAD_BYTES:
            self.head += data[:HEAD_BYTES]
        self._on_data()
        return data


class ServerRefusal(ValueError):
    """An answer of a server that is no video."""


@contextlib.contextmanager
def open_pipe(path: Path | None, patience: Patience) -> Iterator[PipeFile]:
    """Standard input (None) or a named pipe."""
    with contextlib.closing(PipeFile(path, patience)) as file:
        yield file


@contextlib.contextmanager
def open_socket(url: str, patience: Patience, policy: FetchPolicy = DEFAULT_POLICY) -> Iterator[ReadableFile]:
    """What arrives over `tcp://host:port` or at `udp://[group or address]:port`."""
    parts = urlsplit(url)
    if parts.port is None:
        raise ValueError(f"{redact_url(url)} names no port, expected {parts.scheme}://host:port")
    check = policy.check_address or (lambda _: None)
    is_udp = parts.scheme == "udp"
    host = parts.hostname or ""
    opened = _bind(parts) if is_udp else connect(host, parts.port, lambda: patience, check_address=check)
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
def open_http(
    url: str, patience: Patience, policy: FetchPolicy = DEFAULT_POLICY, part: tuple[int, int | None] | None = None
) -> Iterator[tuple[ReadableFile, int | None, str]]:
    """The body behind an http(s) address, its length if the server states one, and its media type.

    Redirects are followed, but never from https to http. The body has no limit, as live streams have none.

    Args:
        url: the address.
        patience: with each address that is connected to, and with the answer.
        policy: as in `open_response`.
        part: the first byte that is wanted, and the one behind the last, None for all that follow.

    Raises:
        FetchError: the policy forbids it.
        ServerRefusal: the server answered that it does not have it.
        OSError: it cannot be reached, its certificate cannot be trusted, or the answer breaks off.
    """
    headers = {} if part is None else {"Range": f"bytes={part[0]}-{'' if part[1] is None else part[1] - 1}"}
    answered = open_response(url, policy, lambda: patience, patience, lambda _: _as_os_errors(), headers)
    with answered as (response, name, address):
        if response.status != (200 if part is None else 206):
            raise ServerRefusal(f"{name}: the server answered {response.status}; check the address")
        body = ReadableFile(_as_os_errors()(response.read1), address)
        yield body, response.length, response.getheader("Content-Type", "")


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
