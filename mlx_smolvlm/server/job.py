"""One answer that the engine makes for a request, and what goes wrong with it, in a client's words."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .errors import ApiError, internal_error
from .planning import refusal

if TYPE_CHECKING:
    from ..engine.row import BatchRequest, RowEvent
    from ..options import GenerationOptions

LOG = logging.getLogger("mlx_smolvlm.server")


@dataclass(eq=False)
class Job:
    """One answer that the engine makes.

    Attributes:
        request, options: what is asked, and how it is answered.
        deliver: called in the loop with what happens, in order: None when the model begins with the prompt, then
            events; an `ApiError` is the last.
        loop: the event loop that waits for it.
        cancel: ends it; see `Engine.cancel`.
        submitted_s, begun_s, first_s, last_s: `time.perf_counter` when it was submitted, when the model began with it,
            and when its first and latest token came; 0 before that.
    """

    request: "BatchRequest"
    options: "GenerationOptions"
    deliver: "Callable[[RowEvent | ApiError | None], None]"
    loop: asyncio.AbstractEventLoop
    cancel: threading.Event = field(default_factory=threading.Event)
    submitted_s: float = field(default_factory=time.perf_counter)
    begun_s: float = 0.0
    first_s: float = 0.0
    last_s: float = 0.0


def as_api_error(error: Exception) -> ApiError:
    """What a row's error is to a client."""
    from ..engine.sampling import NotFiniteError

    if isinstance(error, NotFiniteError):
        LOG.error("%s", error)
        return ApiError(500, "not_finite", str(error), headers=internal_error().headers)
    return refusal(error)
