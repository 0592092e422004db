"""What a program is told, as JSON objects: each event is a dataclass, and its fields are the object's."""

import json
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from ..api.caption_steps import Caption
from ..api.generation import GenerationResponse
from ..engine.row import RowEvent

MAX_MESSAGE = 2000  # characters; whatever an error quotes, it is read by a person
LOST_MEMORY = ("Insufficient Memory", "SubmissionsIgnored")  # of Metal: only a new process can use the GPU again
OUT_OF_MEMORY = (*LOST_MEMORY, "[malloc", "Unable to allocate", "bad_alloc")

# Made once, as they are used for each token.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=asdict)


@dataclass(frozen=True)
class AnswerStatistics:
    """The cost of an answer: tokens of the prompt, those for images, those not read again; of the answer; seconds."""

    prompt_tokens: int
    image_tokens: int
    cached_tokens: int
    completion_tokens: int
    seconds: float


@dataclass(frozen=True)
class BridgeEvent:
    """An event. Every request ends with exactly one whose `is_last` is true.

    Attributes:
        id: of the request; None if it had none that could be read.
    """

    name: ClassVar[str]
    is_last: ClassVar[bool] = False
    id: int | None

    def json(self) -> str:
        """The event as one line."""
        text = _ENCODER.encode({"event": self.name, **vars(self)})
        return text.encode("utf-8", "replace").decode()  # names of files may have bytes that are no characters


@dataclass(frozen=True)
class ReadyEvent(BridgeEvent):
    """Answers `hello`: the protocol, versions of what matters, and what MLX computes on."""

    name = "ready"
    is_last = True
    protocol: int
    versions: dict[str, str]
    device: str


@dataclass(frozen=True)
class ProgressEvent(BridgeEvent):
    """What goes on while a model is loaded.

    Attributes:
        what: such as "downloading".
        fraction: how much of it is done, from 0 to 1; None where that is not known.
        done_bytes, total_bytes: of a download, else None. The total grows while files are begun.
    """

    name = "progress"
    what: str
    fraction: float | None = None
    done_bytes: int | None = None
    total_bytes: int | None = None


@dataclass(frozen=True)
class LoadedEvent(BridgeEvent):
    """Answers `load`."""

    name = "loaded"
    is_last = True
    model: int
    context_length: int
    dtype: str


@dataclass(frozen=True)
class StartedEvent(BridgeEvent):
    """`captions` has started: frames are wanted from now on."""

    name = "started"


@dataclass(frozen=True)
class TokenEvent(BridgeEvent):
    """One step of an answer; the last one has `finish_reason` and `statistics`, and `end` follows."""

    name = "token"
    text: str
    token_id: int | None
    finish_reason: str | None = None
    statistics: AnswerStatistics | None = None
    logprob: float | None = None
    top_logprobs: list[tuple[int, float]] | None = None


@dataclass(frozen=True)
class CaptionEvent(BridgeEvent):
    """A caption, with the fields of `mlx_smolvlm.Caption`."""

    name = "caption"
    caption: Caption


@dataclass(frozen=True)
class EndEvent(BridgeEvent):
    """A request has ended well; `result` is what it asked for, if anything."""

    name = "end"
    is_last = True
    result: Any = None


@dataclass(frozen=True)
class ErrorEvent(BridgeEvent):
    """A request has failed.

    Attributes:
        kind: "invalid_request", "file_not_found", "network", "out_of_memory", "incompatible", "closed",
            "package_missing" or "python".
        type: name of Python's exception.
        message: one line.
    """

    name = "error"
    is_last = True
    kind: str
    type: str
    message: str


@dataclass(frozen=True)
class LogEvent(BridgeEvent):
    """A warning or a line of the log; belongs to no request."""

    name = "log"
    level: str
    message: str


class Incompatible(Exception):
    """The program speaks another protocol."""


class Released(Exception):
    """What a request belongs to was released."""


def error_event(request: int | None, error: BaseException) -> ErrorEvent:
    """The event for an exception, whatever it is."""
    text = " ".join(_text(error).split()) or type(error).__name__
    text = text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE // 2]}...{text[-MAX_MESSAGE // 2 :]}"
    return ErrorEvent(request, _kind(error, text), type(error).__name__, text)


def row_token(event: RowEvent) -> TokenEvent:
    """A step of an answer that is made together with others."""
    statistics = AnswerStatistics(
        event.prompt_tokens, event.image_tokens, event.cached_tokens, event.completion_tokens, round(event.seconds, 6)
    )
    return TokenEvent(
        event.key,  # type: ignore[arg-type]
        event.text,
        event.token_id,
        event.finish_reason,
        statistics if event.finish_reason else None,
        event.logprob,
        event.top_logprobs,
    )


def response_token(request: int, step: GenerationResponse, cached_tokens: int, seconds: float) -> TokenEvent:
    """A step of an answer that is made alone."""
    statistics = AnswerStatistics(
        step.prompt_tokens, step.image_tokens, cached_tokens, step.completion_tokens, round(seconds, 6)
    )
    return TokenEvent(
        request,
        step.text,
        step.token_id,
        step.finish_reason,
        statistics if step.finish_reason else None,
        step.logprob,
        step.top_logprobs,
    )


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an exception of somebody else's, whose text cannot be made
        return ""


def _kind(error: BaseException, text: str) -> str:
    from ..media.urls import FetchError

    if isinstance(error, MemoryError) or any(sign in text for sign in OUT_OF_MEMORY):
        return "out_of_memory"
    for kind, classes in (
        ("incompatible", (Incompatible,)),
        ("closed", (Released,)),
        ("network", (ConnectionError, FetchError, TimeoutError)),
        ("file_not_found", (FileNotFoundError,)),
        ("invalid_request", (ValueError, TypeError, OSError, ImportError)),
    ):
        if isinstance(error, classes):
            return kind
    return "python"
