"""Errors as OpenAI's clients read them: `{"error": {"message", "type", "param", "code"}}`."""

import logging
from collections.abc import Iterable
from typing import Any

from starlette.responses import JSONResponse

LOG = logging.getLogger("mlx_smolvlm.server")
TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
NO_RETRY = ("x-should-retry", "false")  # OpenAI's clients try a 408, a 409 and every 5xx again otherwise
MAX_MESSAGE = 1000  # characters


class ApiError(Exception):
    """A request that is refused or has failed.

    Attributes:
        status: of the HTTP response.
        code: what programs look at, such as `context_length_exceeded`.
        message: what people read: the value, what was expected, what to do.
        param: the field of the request that is at fault.
        headers: further headers of the response.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
    ):
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message if len(message) <= MAX_MESSAGE else f"{message[: MAX_MESSAGE - 3]}..."
        self.param = param
        self.headers = tuple(headers)

    @property
    def body(self) -> dict[str, Any]:
        """The body of the response, and the `data` of the event that ends a stream."""
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The HTTP response."""
        return JSONResponse(self.body, self.status, dict(self.headers))

    def plain_response(self) -> JSONResponse:
        """The HTTP response as Ollama's clients read it: `{"error": message}`."""
        return JSONResponse({"error": self.message}, self.status, dict(self.headers))


def bad_request(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """A 400."""
    return ApiError(400, code, message, param)


def server_busy(message: str) -> ApiError:
    """A 503 that is worth another try."""
    return ApiError(503, "server_busy", message, headers=[("Retry-After", "2")])


def internal_error() -> ApiError:
    """A bug, which the log describes and the client cannot mend by trying again."""
    return ApiError(500, "internal_error", "the server failed on this request; its log says why", headers=[NO_RETRY])


def refusal(error: Exception, param: str | None = None) -> ApiError:
    """What an error of the package is to a client. Called where the model is loaded."""
    from ..engine.sampling import NotFiniteError
    from ..processor.prompt import ContextLengthError

    if isinstance(error, ApiError):
        return error
    if isinstance(error, NotFiniteError):
        LOG.error("%s", error)
        return ApiError(500, "not_finite", str(error), headers=[NO_RETRY])
    if isinstance(error, ContextLengthError):
        return bad_request(str(error), param or "messages", "context_length_exceeded")
    if isinstance(error, ImportError):
        return bad_request(str(error), param, "not_installed")
    if isinstance(error, ValueError | TypeError):
        return bad_request(str(error), param)
    LOG.error("a request failed", exc_info=error)
    return internal_error()
