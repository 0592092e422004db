"""What a program asks for, as JSON objects: each request is a dataclass, and its fields are the object's."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..options import did_you_mean, quoted
from .checked import read_object
from .pixels import ImageInput, VideoInput

PROTOCOL = 1  # changes when a program that speaks the old one would no longer be understood


@dataclass(frozen=True)
class HelloRequest:
    """The first request: which protocol the program speaks. Answered by `ready`."""

    id: int
    protocol: int


@dataclass(frozen=True)
class AdapterInput:
    """An adapter: a folder or a Hub id, and its weight."""

    path: str
    weight: float = 1.0


@dataclass(frozen=True)
class LoadRequest:
    """Load a model: a folder, a Hub id, or the demo model (null). Its number in later requests is this `id`.

    With adapters it is a model of its own; the same base may be loaded with others, or without, beside it.
    """

    id: int
    model: str | None = None
    dtype: str | None = None
    revision: str | None = None
    adapters: tuple[AdapterInput, ...] = ()


@dataclass(frozen=True)
class UnloadRequest:
    """Release a model and all its sessions. Its answers end with an error."""

    id: int
    model: int


@dataclass(frozen=True)
class RespondRequest:
    """Answer a prompt. `options` has the names of `GenerationOptions` and `MediaOptions`."""

    id: int
    model: int
    prompt: str
    images: tuple[ImageInput, ...] = ()
    videos: tuple[VideoInput, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class WarmUpRequest:
    """Answer a small black image with one token, so that kernels are built and weights in memory."""

    id: int
    model: int


@dataclass(frozen=True)
class SessionCreateRequest:
    """Begin a conversation. Its number in later requests is this `id`."""

    id: int
    model: int
    system: str | None = None


@dataclass(frozen=True)
class SessionLoadRequest:
    """Go on with a conversation that was saved. Its number in later requests is this `id`."""

    id: int
    model: int
    path: str


@dataclass(frozen=True)
class SessionAskRequest:
    """Ask the next question of a conversation."""

    id: int
    session: int
    prompt: str
    images: tuple[ImageInput, ...] = ()
    videos: tuple[VideoInput, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SessionEditRequest:
    """Ask the last question in other words. Its media stay unless new ones are given."""

    id: int
    session: int
    prompt: str
    images: tuple[ImageInput, ...] | None = None
    videos: tuple[VideoInput, ...] | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SessionRegenerateRequest:
    """Regenerate the last answer."""

    id: int
    session: int
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SessionUndoRequest:
    """Take back the last question with its answer."""

    id: int
    session: int


@dataclass(frozen=True)
class SessionTurnsRequest:
    """List the conversation's turns, in the `end` event."""

    id: int
    session: int


@dataclass(frozen=True)
class SessionSaveRequest:
    """Write the conversation into a file."""

    id: int
    session: int
    path: str


@dataclass(frozen=True)
class SessionCloseRequest:
    """Release a conversation."""

    id: int
    session: int


@dataclass(frozen=True)
class CaptionsRequest:
    """Describe frames while they come. `frame` names this `id` as its `source`."""

    id: int
    model: int
    prompt: str
    window_s: float = 10.0
    every_s: float | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FinishFramesRequest:
    """There will be no more frames; the captions end after those that are left."""

    id: int
    source: int


@dataclass(frozen=True)
class LimitsRequest:
    """Bound the memory of MLX in this process: released buffers that it keeps, and all that it allocates, in bytes."""

    id: int
    cache_bytes: int | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class PingRequest:
    """Answered by `end`, and by nothing else."""

    id: int


@dataclass(frozen=True)
class FrameRequest:
    """A frame of `captions`, the one attachment. On the wire alone, and without an answer."""

    source: int
    width: int
    height: int
    bytes_per_row: int
    format: str
    seconds: float


@dataclass(frozen=True)
class CancelRequest:
    """End the request with this `id`. On the wire alone; what is cancelled ends, this has no answer."""

    id: int


REQUESTS: dict[str, type] = {
    "hello": HelloRequest,
    "load": LoadRequest,
    "unload": UnloadRequest,
    "respond": RespondRequest,
    "warm_up": WarmUpRequest,
    "session.create": SessionCreateRequest,
    "session.load": SessionLoadRequest,
    "session.ask": SessionAskRequest,
    "session.edit": SessionEditRequest,
    "session.regenerate": SessionRegenerateRequest,
    "session.undo": SessionUndoRequest,
    "session.turns": SessionTurnsRequest,
    "session.save": SessionSaveRequest,
    "session.close": SessionCloseRequest,
    "captions": CaptionsRequest,
    "finish_frames": FinishFramesRequest,
    "limits": LimitsRequest,
    "ping": PingRequest,
}
WIRE_REQUESTS: dict[str, type] = {"frame": FrameRequest, "cancel": CancelRequest}


def parse_json(message: str) -> Any:
    """The JSON value of a message. Raises ValueError."""
    try:
        return _DECODER.decode(message)
    except RecursionError:
        raise ValueError("the request is nested too deep") from None
    except ValueError as error:
        raise ValueError(f"the request is not JSON: {error}") from None


def request_id(value: Any) -> int | None:
    """The number that a request has, if it has one."""
    number = value.get("id") if isinstance(value, dict) else None
    return number if type(number) is int else None


def read_request(value: Any, kinds: dict[str, type] = REQUESTS) -> Any:
    """A request from a JSON value: an object with the name of the request in `request`, and its fields.

    Args:
        value: what `parse_json` returned.
        kinds: the requests that are known.

    Raises:
        ValueError: another request, or fields that are unknown, missing or of another type.
    """
    if not isinstance(value, dict):
        raise ValueError(f"the request is {quoted(value)}, expected an object")
    name = value.get("request")
    if not isinstance(name, str) or name not in kinds:
        advice = did_you_mean(name, list(kinds)) or f"expected {', '.join(kinds)}"
        raise ValueError(f"request is {quoted(name)}; {advice}")
    # How many bytes follow is for the wire, which has read them.
    inner = {key: item for key, item in value.items() if key not in ("request", "attachments")}
    return read_object(kinds[name], inner, name)


def sources(inputs: Sequence[ImageInput | VideoInput], attachments: Sequence[bytes]) -> list[Any]:
    """What `stream_generate` takes for images or videos. Raises ValueError."""
    return [given.source(attachments) for given in inputs]


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
