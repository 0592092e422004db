"""What every request passes before a handler sees it, and every response on its way out.

In this order: Host, Origin, API key, path and method, header rules; then the body's limits. Refusals, from here or from
handlers, become responses in OpenAI's error form. Nothing of a request but its method, path and id is logged.
"""

import hmac
import logging
import re
import time
import uuid
from collections.abc import Collection, Sequence
from typing import Any
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...options import quoted
from ..errors import ApiError, bad_request, internal_error
from ..settings import ServerSettings
from .origins import HostCheck, OriginCheck, preflight_headers
from .request_body import HeldBytes, RequestBody, too_large

LOG = logging.getLogger("mlx_smolvlm.server")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
CHARSET = re.compile(r';\s*charset\s*=\s*+"?+(?!utf-?8\b)', re.IGNORECASE)  # one that JSON does not have
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
OLLAMA_PREFIX = "/api/"  # its clients expect the text of an error, not an object
MAX_LOGGED_PATH = 200  # characters
DEFAULT_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}


def middleware(
    settings: ServerSettings, routes: Sequence[BaseRoute], public_paths: Collection[str]
) -> list[Middleware]:
    """The middleware of the server's Starlette app.

    Args:
        routes: all of the app, by which unknown paths and methods are refused.
        public_paths: what is read without an API key.

    Raises:
        ValueError: an allowed host or origin that can be none.
    """
    return [Middleware(Guards, settings=settings, routes=routes, public_paths=public_paths)]


class Guards:
    """ASGI middleware; handlers see `request.state.request_id` and a checked request."""

    def __init__(
        self, app: ASGIApp, settings: ServerSettings, routes: Sequence[BaseRoute], public_paths: Collection[str]
    ):
        self._app = app
        self._settings = settings
        self._routes = routes
        self._public_paths = frozenset(public_paths)
        self._hosts = HostCheck(settings.host, settings.allowed_hosts)
        self._origins = OriginCheck(settings.cors_origins)
        self._held = HeldBytes(settings.max_held_bytes)
        self._key = settings.api_key.encode() if settings.api_key is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given_id = headers.get("x-request-id", "")
        request_id = given_id if REQUEST_ID.fullmatch(given_id) else f"req_{uuid.uuid4().hex}"
        scope.setdefault("state", {})["request_id"] = request_id
        body = RequestBody(headers, receive, self._settings, self._held)
        response = _Response(scope, body, send, self._added_headers(headers, request_id))
        try:
            preflight = self._admit(scope, headers)
            await (preflight or self._app)(scope, body.receive, response.send)
        except ApiError as error:
            await response.refuse(error, scope)
        except ClientDisconnect:
            pass
        except Exception:
            LOG.exception("%s failed", request_id)
            await response.refuse(internal_error(), scope)
        finally:
            body.release()
            response.log(request_id)

    def _admit(self, scope: Scope, headers: Headers) -> Response | None:
        """Check everything but the body; returns the response to a CORS preflight.

        Raises:
            ApiError: the request is refused.
        """
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        self._hosts.check(hosts, scope["scheme"], scope.get("server"))
        if scope["method"] == "OPTIONS" and origins and "access-control-request-method" in headers:
            self._origins.check(origins, hosts)
            return Response(
                status_code=204, headers=preflight_headers(headers.get("access-control-request-headers", ""))
            )
        if scope["method"] not in SAFE_METHODS:
            self._origins.check(origins, hosts)
        route = self._route(scope)
        if self._key is not None and not (route is not None and route.path in self._public_paths):
            self._check_key(self._key, headers)
        if route is None:
            raise self._no_route(scope)
        self._check_headers(scope, headers)
        return None

    def _route(self, scope: Scope) -> Route | None:
        matches = (route for route in self._routes if route.matches(scope)[0] is Match.FULL)
        return next((route for route in matches if isinstance(route, Route)), None)

    def _no_route(self, scope: Scope) -> ApiError:
        allowed: set[str] = set()
        for route in self._routes:
            if isinstance(route, Route) and route.matches(scope)[0] is Match.PARTIAL:
                allowed |= route.methods or set()
        shown = quoted(scope["path"])
        if allowed:
            allow = ", ".join(sorted(allowed))
            message = f"{quoted(scope['method'])} is not a method of {shown}, which has {allow}"
            return ApiError(405, "method_not_allowed", message, headers=[("allow", allow)])
        return ApiError(404, "not_found", f"there is no {shown} here; /openapi.json lists what there is")

    def _check_key(self, key: bytes, headers: Headers) -> None:
        given = headers.getlist("x-api-key")
        for value in headers.getlist("authorization"):
            scheme, _, credentials = value.partition(" ")
            if scheme.lower() == "bearer":
                given.append(credentials.strip())
        # every one is compared, each in constant time
        if not sum(hmac.compare_digest(value.encode("latin-1"), key) for value in given):
            found = "the API key is wrong" if given else "an API key is missing"
            raise ApiError(
                401,
                "invalid_api_key",
                f"{found}; send it as 'Authorization: Bearer KEY' or as 'X-Api-Key: KEY'",
                headers=[("www-authenticate", "Bearer")],
            )

    def _check_headers(self, scope: Scope, headers: Headers) -> None:
        if "transfer-encoding" in headers and "content-length" in headers:  # proxies may believe one or the other
            raise bad_request("there are both Transfer-Encoding and Content-Length; send one", code="invalid_header")
        encoding = headers.get("content-encoding", "identity")
        if encoding.strip().lower() != "identity":
            raise ApiError(
                415,
                "unsupported_content_encoding",
                f"Content-Encoding is {quoted(encoding)}; send the body as it is",
                headers=[("accept-encoding", "identity")],
            )
        content_type = headers.get("content-type", "")
        is_json = content_type.partition(";")[0].strip().lower() == "application/json"
        # Some of Ollama's clients leave it out. Browsers could, too, but tell the origin of what they send.
        is_bare = not content_type and _is_ollama(scope) and not {"origin", "sec-fetch-site"} & set(headers)
        if scope["method"] == "POST" and not is_bare and (not is_json or CHARSET.search(content_type)):
            found = f"is {quoted(content_type)}" if content_type else "is missing"
            raise ApiError(
                415,
                "unsupported_content_type",
                f"Content-Type {found}; send JSON with 'Content-Type: application/json'",
                headers=[("accept", "application/json")],
            )
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._settings.max_body_bytes:
            raise too_large(self._settings)

    def _added_headers(self, headers: Headers, request_id: str) -> dict[str, str]:
        added = {"x-request-id": request_id}
        origins = headers.getlist("origin")
        if len(origins) == 1 and self._origins.allows(origins[0]):
            added["access-control-allow-origin"] = origins[0]
            added["access-control-expose-headers"] = "x-request-id, retry-after"
        return added


class _Response:
    """The sending side of one request."""

    def __init__(self, scope: Scope, body: RequestBody, send: Send, added_headers: dict[str, str]):
        self._scope, self._body, self._send = scope, body, send
        self._added_headers = added_headers
        self._started_s = time.monotonic()
        self._status: int | None = None
        self._is_complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            await self._send({**message, "headers": self._headers(message)})
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self._is_complete = True
            await self._body.send_last(message, self._send)
        else:
            await self._send(message)

    async def refuse(self, error: ApiError, scope: Scope) -> None:
        """Send an error, unless a response has begun: the server then cuts it, and the client can tell."""
        if self._status is None:
            response = error.plain_response() if _is_ollama(scope) else error.response()
            await response(scope, self._body.receive, self.send)

    def log(self, request_id: str) -> None:
        """Log one line; the query is left out, as a key may have been put there."""
        path = self._scope.get("raw_path") or quote(self._scope["path"]).encode()
        shown = path.decode("latin-1")[:MAX_LOGGED_PATH]
        taken_ms = (time.monotonic() - self._started_s) * 1000
        status: Any = self._status if self._is_complete else f"{self._status or '-'} cut off"
        LOG.info("%s %s %s -> %s, %.0f ms", request_id, self._scope["method"], shown, status, taken_ms)

    def _headers(self, message: Message) -> list[tuple[bytes, bytes]]:
        headers = MutableHeaders(raw=list(message.get("headers", [])))
        for name, value in DEFAULT_HEADERS.items():
            headers.setdefault(name, value)
        for name, value in self._added_headers.items():
            headers[name] = value
        headers.add_vary_header("Origin")
        if not self._body.is_complete and self._scope["http_version"].startswith("1"):
            headers["connection"] = "close"  # what still comes of the request is no next one
        return headers.raw


def _is_ollama(scope: Scope) -> bool:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")).startswith(OLLAMA_PREFIX)
