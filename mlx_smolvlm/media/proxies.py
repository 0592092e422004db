"""Proxies that the environment names (`https_proxy`, `http_proxy`, `all_proxy`, `no_proxy`), for downloads."""

import binascii
import contextlib
import os
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from .connections import Patience, SocketFile, connect, secured
from .urls import FetchError, printable, redact_url

_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_HEADER_BYTES = 64 * 1024


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy; `authorization` is the value of its header, or empty."""

    host: str
    port: int
    is_tls: bool
    authorization: str
    name: str  # for messages, without a password


def proxy_for(scheme: str, host: str, port: int) -> Proxy | None:
    """The proxy for an address; None if it is connected to directly.

    Raises:
        FetchError: a proxy of a kind that is not supported, such as SOCKS.
    """
    variable, value = next(
        (
            (name, os.environ[name])
            for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
            # HTTP_PROXY may be a header of a request that a CGI script answers
            if os.environ.get(name) and not (name == "HTTP_PROXY" and "REQUEST_METHOD" in os.environ)
        ),
        ("", ""),
    )
    if not value or _is_excepted(host, port):
        return None
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        proxy_port = parts.port
    except ValueError:
        raise FetchError(f"the proxy of {variable} is no valid address; expected http://host:port") from None
    name = f"{variable} ({redact_url(parts.geturl())})"
    kind = parts.scheme.lower()
    if kind not in _DEFAULT_PORTS or (kind == "https" and scheme == "https") or not parts.hostname:
        raise FetchError(
            f"{redact_url(f'{scheme}://{host}')}: the proxy of {name} is not supported, expected http://host:port; "
            f"set it to one, or name the host in no_proxy"
        )
    authorization = ""
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {binascii.b2a_base64(user.encode(), newline=False).decode('ascii')}"
    return Proxy(parts.hostname, proxy_port or _DEFAULT_PORTS[kind], kind == "https", authorization, name)


def _is_excepted(host: str, port: int) -> bool:
    """Whether `no_proxy` names a host, or a domain that it belongs to. A proxy cannot reach this machine's loopback."""
    host = host.lower()
    if host in ("localhost", "::1") or re.fullmatch(r"127\.[\d.]+", host):
        return True
    for entry in (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").lower().split(","):
        name = entry.strip().lstrip("*").lstrip(".")
        if entry.strip() == "*" or (name and (host in (name, f"[{name}]") or host.endswith(f".{name}"))):
            return True
        if name and name == f"{host}:{port}":
            return True
    return False


@contextlib.contextmanager
def connect_through(
    proxy: Proxy, host: str, port: int, patience: Callable[[], Patience], *, is_tls: bool
) -> Iterator[socket.socket]:
    """A connection to a proxy; for TLS through it to the host, whose certificate is verified.

    Raises what `connect` raises, and FetchError if the proxy refuses.
    """
    with contextlib.ExitStack() as opened:
        try:
            connection = opened.enter_context(connect(proxy.host, proxy.port, patience, is_tls=proxy.is_tls))
        except OSError as error:
            reason = printable(error.strerror or str(error), 160)
            raise FetchError(f"{host}: the proxy of {proxy.name} cannot be reached ({reason}); check it") from error
        if is_tls:
            _ask_for_tunnel(SocketFile(connection, patience()), proxy, f"{host}:{port}")
            connection = opened.enter_context(secured(connection, host, patience()))
        yield connection


def _ask_for_tunnel(connection: SocketFile, proxy: Proxy, target: str) -> None:
    authorization = f"Proxy-Authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
    connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n".encode("ascii"))
    header, byte = bytearray(), bytearray(1)
    while not header.endswith((b"\r\n\r\n", b"\n\n")):  # not a byte more: what follows belongs to TLS
        if not connection.readinto(byte) or len(header) > _MAX_HEADER_BYTES:
            raise FetchError(f"the proxy of {proxy.name} broke off; check it")
        header += byte
    status = header.split(b" ", 2)[1:2]
    if status[:1] != [b"200"]:
        answer = status[0][:3].decode("ascii", "replace") if status and status[0][:3].isdigit() else "no valid HTTP"
        raise FetchError(f"the proxy of {proxy.name} answered {answer} when asked to connect to {target}")
