"""Web addresses and data URLs -> bytes, within stated limits. Standard library only, no MLX."""

from __future__ import annotations

import binascii
import contextlib
import re
import string
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from ..options import DEFAULT_POLICY, FetchPolicy
from .addresses import refuse_private_addresses as refuse_private_addresses
from .connections import CHUNK_BYTES, Patience, SocketFile, connect
from .urls import FetchError, check_size, printable, redact_url

if TYPE_CHECKING:
    from http.client import HTTPResponse

    from .proxies import Proxy

DEFAULT_PORTS = {"http": 80, "https": 443}
REDIRECT_STATUSES = (301, 302, 303, 307, 308)
DOWNLOAD_IT = "download the file and pass its path"


def _never() -> None:
    """Nothing cancels it."""


def fetch(url: str, policy: FetchPolicy = DEFAULT_POLICY, check_cancelled: Callable[[], None] = _never) -> bytes:
    """Return the body behind an http(s) address; `stream` states the rules and the errors."""
    return b"".join(stream(url, policy, check_cancelled))


def stream(
    url: str, policy: FetchPolicy = DEFAULT_POLICY, check_cancelled: Callable[[], None] = _never
) -> Generator[bytes, None, None]:
    """Yield the body behind an http(s) address in chunks of at most 64 KiB.

    The connection closes with the generator. Certificates are verified against the system's store.
    Redirects are followed within the policy, but never from https to http. A user and password in the
    address are sent as basic authentication, to the host they were written for. Proxies of the environment are
    used, unless the policy has a `check_address`, which could not vouch for what a proxy connects to.

    `check_cancelled` is called before each chunk, and twenty times a second while nothing comes, also while a name is
    looked up; it may raise to stop.

    Raises: FetchError for everything that goes wrong, an answer other than 200, a body cut short and a
    crossed limit included.
    """
    until_s = time.monotonic() + policy.timeout_s
    reading = Patience(policy.stall_timeout_s, until_s=until_s, check_cancelled=check_cancelled)

    def connecting() -> Patience:
        limit_s = time.monotonic() + policy.connect_timeout_s
        return Patience(policy.connect_timeout_s, until_s=min(limit_s, until_s), check_cancelled=check_cancelled)

    answered = open_response(url, policy, connecting, reading, lambda name: _as_fetch_errors(name, policy))
    with answered as (response, name, _):
        yield from _body(response, name, policy)


@contextlib.contextmanager
def open_response(
    url: str,
    policy: FetchPolicy,
    connecting: Callable[[], Patience],
    reading: Patience,
    translated: Callable[[str], contextlib.AbstractContextManager[None]],
    headers: Mapping[str, str] | None = None,
) -> Iterator[tuple[HTTPResponse, str, str]]:
    """Connect, ask, and follow redirects within the policy, but never from https to http.

    Args:
        url: an http(s) address.
        policy: schemes, number of redirects and allowed addresses count here.
        connecting: called for the patience with each address that is connected to.
        reading: the patience with everything after that.
        translated: from what the address is called in messages to a context that turns errors, also those of the
            block, into the caller's.
        headers: sent beside those of every request.

    Returns:
        The answer, which is no redirect, its body not read yet; what its address is called in messages; and that
        address.
    """
    from .proxies import connect_through, proxy_for

    name, target = redact_url(url), url
    for _ in range(policy.max_redirects + 1):
        with translated(name), contextlib.ExitStack() as opened:
            parts = _checked_parts(target, name, policy)
            host, port = parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]
            is_tls = parts.scheme == "https"
            proxy = proxy_for(parts.scheme, host, port)
            if proxy is not None and policy.check_address is None:
                connection = opened.enter_context(connect_through(proxy, host, port, connecting, is_tls=is_tls))
            else:
                opened.enter_context(_unused_proxy_named(proxy, name))
                is_trusted = host in policy.trusted_hosts
                if policy.ports is not None and port not in policy.ports and not is_trusted:
                    ports = " and ".join(map(str, policy.ports)) or "none"
                    raise FetchError(f"{name}: port {port} is not allowed here, only {ports}; {DOWNLOAD_IT}")
                check_address = _trust if is_trusted else partial(_check_address, policy, name)
                opening = connect(host, port, connecting, is_tls=is_tls, check_address=check_address)
                connection, proxy = opened.enter_context(opening), None
            response = opened.enter_context(_request(SocketFile(connection, reading), parts, proxy, headers))
            location = response.getheader("Location")
            if response.status not in REDIRECT_STATUSES or not location:
                yield response, name, target
                return
            # Header bytes arrive as Latin-1 text; quoting restores the bytes that the server sent.
            target = urljoin(target, quote(location, safe=string.punctuation, encoding="iso-8859-1"))
            name = f"{redact_url(url)} (redirected to {redact_url(target)})"
            if parts.scheme == "https" and target[:5].lower() == "http:":
                raise FetchError(f"{name}: refused, since https may not turn into http; {DOWNLOAD_IT}")
    raise FetchError(f"{name}: more than {policy.max_redirects} redirects; use the final address, or {DOWNLOAD_IT}")


@contextlib.contextmanager
def _unused_proxy_named(proxy: Proxy | None, name: str) -> Iterator[None]:
    """Within: an error to connect names the proxy that was not used."""
    try:
        yield
    except FetchError:
        raise
    except OSError as error:
        if proxy is None:
            raise
        raise FetchError(
            f"{name}: {printable(error.strerror or str(error), 160)}; the proxy of {proxy.name} was not used, since "
            "FetchPolicy.check_address could not vouch for what a proxy connects to"
        ) from error


def _trust(_: str) -> None:
    """Any address will do."""


def _check_address(policy: FetchPolicy, name: str, address: str) -> None:
    if policy.check_address is not None:
        try:
            policy.check_address(address)
        except ValueError as error:
            raise FetchError(f"{name}: {printable(str(error), 200)}") from error


def _checked_parts(url: str, name: str, policy: FetchPolicy) -> SplitResult:
    """Split an address, called `name` in messages; the host comes back in ASCII. Raises FetchError if refused."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode("ascii")
        port = parts.port
    except ValueError as error:  # UnicodeError is one; its text may quote a password
        raise FetchError(f"{name}: not a valid address; expected https://host/path") from error
    if parts.scheme not in policy.schemes:
        raise FetchError(f"{name}: only {' and '.join(policy.schemes)} addresses are fetched; {DOWNLOAD_IT}")
    if not host or re.search(r"[^!-~]", host):
        raise FetchError(f"{name}: not a valid address; expected https://host/path")
    user, at, _ = parts.netloc.rpartition("@")
    host = f"[{host}]" if ":" in host else host
    port_text = "" if port in (None, DEFAULT_PORTS[parts.scheme]) else f":{port}"
    return parts._replace(netloc=f"{user}{at}{host}{port_text}")


def _request(
    connection: SocketFile, parts: SplitResult, proxy: Proxy | None, more: Mapping[str, str] | None
) -> HTTPResponse:
    """Ask for the address, of a proxy if there is one, and read the header."""
    import http.client

    user, _, host = parts.netloc.rpartition("@")
    headers = {"Host": host, "User-Agent": "mlx-smolvlm", "Accept-Encoding": "identity", "Connection": "close"}
    headers |= more or {}
    if user:
        basic = binascii.b2a_base64(unquote(user if ":" in user else f"{user}:").encode(), newline=False)
        headers["Authorization"] = f"Basic {basic.decode('ascii')}"
    path = quote(parts.path or "/", safe=string.punctuation)
    query = f"?{quote(parts.query, safe=string.punctuation)}" if parts.query else ""
    client = http.client.HTTPConnection(host)
    client.sock = connection  # of which it uses makefile, sendall and close
    asked = path + query
    if proxy is not None and parts.scheme == "http":  # through a tunnel, the server is asked as ever
        asked = f"http://{host}{asked}"
        if proxy.authorization:
            headers["Proxy-Authorization"] = proxy.authorization
    client.request("GET", asked, headers=headers)
    return client.getresponse()


def _body(response: HTTPResponse, name: str, policy: FetchPolicy) -> Iterator[bytes]:
    from http import HTTPStatus

    if response.status != HTTPStatus.OK:
        known = response.status in list(HTTPStatus)
        phrase = f" {HTTPStatus(response.status).phrase}" if known else ""  # the server's own could say anything
        raise FetchError(f"{name}: the server answered {response.status}{phrase}; check the address, or {DOWNLOAD_IT}")
    if response.getheader("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise FetchError(f"{name}: the server compressed the file, though not asked to; {DOWNLOAD_IT}")
    expected_bytes = response.length
    check_size(expected_bytes or 0, policy.max_bytes, name)
    received_bytes = 0
    while chunk := response.read1(CHUNK_BYTES):
        received_bytes += len(chunk)
        check_size(received_bytes, policy.max_bytes, name)
        yield chunk
    if expected_bytes is not None and received_bytes != expected_bytes:  # read1 takes an early end as the end
        raise FetchError(f"{name}: broke off after {received_bytes} of {expected_bytes} bytes; try again")


@contextlib.contextmanager
def _as_fetch_errors(name: str, policy: FetchPolicy) -> Iterator[None]:
    from http.client import HTTPException, IncompleteRead

    try:
        yield
    except TimeoutError as error:
        limits = (
            f"limits: {policy.connect_timeout_s:g} s to connect, {policy.stall_timeout_s:g} s without a byte, "
            f"{policy.timeout_s:g} s in all"
        )
        raise FetchError(f"{name}: timed out ({limits}); try again, or {DOWNLOAD_IT}") from error
    except IncompleteRead as error:
        raise FetchError(f"{name}: broke off before its end; try again, or {DOWNLOAD_IT}") from error
    except HTTPException as error:
        raise FetchError(f"{name}: the answer is not valid HTTP ({type(error).__name__}); check the address") from error
    except OSError as error:
        reason, step = error.strerror or type(error).__name__, "check the address and the connection"
        if problem := getattr(error, "verify_message", ""):
            reason = f"its certificate cannot be trusted ({problem})"
            step = "check the address; a python.org Python needs 'Install Certificates.command' once"
        raise FetchError(f"{name}: {printable(reason, 160)}; {step}") from error
