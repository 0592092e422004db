"""Which names a request may call the server by, and which pages may send one.

A page of any site can send requests to a server on the visitor's machine. Two checks keep it out. Host: a site that
points its own name at 127.0.0.1 (DNS rebinding) is still called by its name. Origin: browsers say which page sends.
"""

import ipaddress
import re
from collections.abc import Sequence

from ...options import quoted
from ..errors import ApiError
from ..settings import LOOPBACK_HOSTS

HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::(?P<port>[0-9]{1,5}))?")
ORIGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<authority>[a-z0-9_.:\[\]-]*|\*)")
DEFAULT_PORTS = {"http": 80, "https": 443}

# What clients in browsers send beside the headers that need no leave: OpenAI's adds some of its own.
CLIENT_HEADERS = frozenset({"authorization", "content-type", "x-api-key", "x-request-id", "idempotency-key"})
CLIENT_HEADER_PREFIXES = ("x-stainless-", "openai-")
PREFLIGHT_S = 600  # for which a browser may remember the leave


class HostCheck:
    """The Host headers that are served.

    These are localhost, the loopback addresses, the name or address to listen on, and the address at which the
    connection arrived, all with the server's port; and `allowed_hosts`, with any port unless they name one. Addresses
    as such are safe: what rebinding needs is a name.

    Raises:
        ValueError: an entry of `allowed_hosts` that no Host header can be.
    """

    def __init__(self, host: str, allowed_hosts: Sequence[str]):
        self._names = {*LOOPBACK_HOSTS, host.strip("[]").lower()}
        self._allowed = set()
        for entry in allowed_hosts:
            match = HOST.fullmatch(entry.lower())
            if match is None:
                raise ValueError(f"allowed host {quoted(entry)} is not a name with or without a port; name each host")
            self._allowed.add((match["name"], match["port"]))

    def check(self, hosts: Sequence[str], scheme: str, local: tuple[str, int | None] | None) -> None:
        """Check the Host headers of a request that arrived at the address `local`.

        Raises:
            ApiError: 403.
        """
        if len(hosts) != 1:
            raise _forbidden_host("there are several Host headers" if hosts else "there is no Host header")
        match = HOST.fullmatch(hosts[0].lower())
        if match is not None:
            name, port = match["name"], match["port"]
            if (name, None) in self._allowed or (name, port) in self._allowed:
                return
            local_name, local_port = local or ("", None)
            bare = name.strip("[]")
            right_port = local_port is None or int(port or DEFAULT_PORTS.get(scheme, 80)) == local_port
            if right_port and (bare in self._names or _is_address(bare, local_name)):
                return
        raise _forbidden_host(f"the Host header is {quoted(hosts[0])}")


class OriginCheck:
    """The origins whose pages may call the server: its own, and `cors_origins`.

    An entry is an origin as browsers send it, `null` (pages opened as files), or `SCHEME://*` for the schemes of apps,
    whose hosts are made up, such as `vscode-webview://*`.

    Raises:
        ValueError: an entry that no browser sends as an origin.
    """

    def __init__(self, cors_origins: Sequence[str]):
        self._origins, self._schemes = set(), set()
        for entry in cors_origins:
            origin = entry.lower().removesuffix("/")
            match = ORIGIN.fullmatch(origin)
            is_web = match is not None and match["scheme"] in DEFAULT_PORTS
            if origin != "null" and (match is None or (is_web and match["authority"] in ("", "*"))):
                raise ValueError(
                    f"CORS origin {quoted(entry)} is neither an origin such as https://example.com nor null; "
                    "name each origin"
                )
            if match is not None and match["authority"] == "*":
                self._schemes.add(match["scheme"])
            else:
                self._origins.add(origin)

    def check(self, origins: Sequence[str], hosts: Sequence[str]) -> None:
        """Check the Origin headers of a request that may change something.

        Raises:
            ApiError: 403.
        """
        if len(origins) > 1 or any(not self.allows(origin) and not _is_own(origin, hosts) for origin in origins):
            raise ApiError(
                403,
                "origin_not_allowed",
                f"pages of {quoted(', '.join(origins))} may not call this server; --cors-origin allows an origin",
            )

    def allows(self, origin: str) -> bool:
        """Whether pages of a foreign origin may call the server and read its answers."""
        origin = origin.lower()
        return origin in self._origins or origin.partition("://")[0] in self._schemes


def preflight_headers(requested: str) -> dict[str, str]:
    """Headers of the response to a CORS preflight of an allowed origin.

    Args:
        requested: the headers that the page wants to send, separated by commas.
    """
    names = sorted({name.strip().lower() for name in requested.split(",")})
    granted = [name for name in names if name in CLIENT_HEADERS or name.startswith(CLIENT_HEADER_PREFIXES)]
    return {
        "access-control-allow-methods": "GET, POST",
        "access-control-allow-headers": ", ".join(granted or sorted(CLIENT_HEADERS)),
        "access-control-allow-private-network": "true",
        "access-control-max-age": str(PREFLIGHT_S),
    }


def _is_own(origin: str, hosts: Sequence[str]) -> bool:
    """Whether it is the origin of the server's own page, whatever terminates TLS before it."""
    scheme, _, authority = origin.lower().partition("://")
    return scheme in DEFAULT_PORTS and [authority] == [host.lower() for host in hosts]


def _is_address(name: str, local: str) -> bool:
    try:
        return ipaddress.ip_address(name) == ipaddress.ip_address(local.partition("%")[0])
    except ValueError:
        return False


def _forbidden_host(found: str) -> ApiError:
    return ApiError(
        403,
        "host_not_allowed",
        f"{found}; call the server by its address, such as http://localhost:8080, or allow the name with "
        "--allow-host-header",
    )
