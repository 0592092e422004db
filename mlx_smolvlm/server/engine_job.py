"""One answer that the engine makes for a request."""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Union

from .errors import ApiError

if TYPE_CHECKING:
    from ..engine.prompt_progress import PromptProgress
    from ..engine.row import BatchRequest, RowEvent
    from ..options import GenerationOptions


Delivered = Union["RowEvent", "PromptProgress", ApiError, None]


@dataclass(eq=False)
class EngineJob:
    """One answer that the engine makes.

    Attributes:
        request, options: what is asked, and how it is answered.
        deliver: called in the loop with what happens, in order: None when the model begins with the prompt, then
            events; an `ApiError` is the last.
        tells_progress: whether how much of the prompt is read is delivered, too.
        loop: the event loop that waits for it.
        cancel: ends it; see `Engine.cancel`.
        submitted_s, begun_s, first_s, last_s: `time.perf_counter` when it was submitted, when the model began with it,
            and when its first and latest token came; 0 before that.
    """

    request: "BatchRequest"
    options: "GenerationOptions"
    deliver: Callable[[Delivered], None]
    loop: asyncio.AbstractEventLoop
    tells_progress: bool = False
    cancel: threading.Event = field(default_factory=threading.Event)
    submitted_s: float = field(default_factory=time.perf_counter)
    begun_s: float = 0.0
    first_s: float = 0.0
    last_s: float = 0.0
