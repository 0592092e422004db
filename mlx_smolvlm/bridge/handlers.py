"""What each request does: models, sessions and sources by the numbers that programs know them by."""

import gc
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from threading import Event
from typing import Any

import mlx.core as mx
import numpy as np

from .. import __version__
from ..api.captioning import caption_pushed_frames
from ..api.generation import generate_text
from ..api.session import Session
from ..engine.row import BatchRequest, refuse_single_options
from ..media.live.pushed import PushedFrames
from ..options import resolve_options
from .events import EndEvent, Incompatible, ReadyEvent, Released, StartedEvent
from .jobs import MAX_FEATURE_BYTES, LoadedModel, answering, answering_alone, captioning, loading, turns
from .pixels import ImageInput, VideoInput
from .requests import (
    PROTOCOL,
    CaptionsRequest,
    FinishFramesRequest,
    HelloRequest,
    LimitsRequest,
    LoadRequest,
    PingRequest,
    RespondRequest,
    SessionAskRequest,
    SessionCloseRequest,
    SessionCreateRequest,
    SessionEditRequest,
    SessionLoadRequest,
    SessionRegenerateRequest,
    SessionSaveRequest,
    SessionTurnsRequest,
    SessionUndoRequest,
    UnloadRequest,
    WarmUpRequest,
    sources,
)
from .schedule import Schedule

Bytes = list[bytes]


class Handlers:
    """Does what requests ask for; called by the thread that owns MLX.

    Attributes:
        sources: where frames of `captions` requests go.
    """

    def __init__(self, schedule: Schedule, post: Callable[[Any], None]):
        """`post` is given the events that are made here."""
        self.sources: dict[int, PushedFrames] = {}
        self._schedule = schedule
        self._post = post
        self._models: dict[int, LoadedModel] = {}
        self._sessions: dict[int, tuple[int, Session]] = {}  # with the numbers of their models
        self._by_kind: dict[type, Callable[[Any, Bytes, Event], None]] = {
            HelloRequest: self._hello,
            LoadRequest: self._load,
            UnloadRequest: self._unload,
            RespondRequest: self._respond,
            WarmUpRequest: self._warm_up,
            SessionCreateRequest: self._create_session,
            SessionLoadRequest: self._load_session,
            SessionAskRequest: self._ask,
            SessionEditRequest: self._edit,
            SessionRegenerateRequest: self._regenerate,
            SessionUndoRequest: self._undo,
            SessionTurnsRequest: self._turns,
            SessionSaveRequest: self._save,
            SessionCloseRequest: self._close_session,
            CaptionsRequest: self._captions,
            FinishFramesRequest: self._finish_frames,
            LimitsRequest: self._limits,
            PingRequest: self._ping,
        }

    def begin(self, request: Any, attachments: Bytes, cancel: Event) -> None:
        """Do what a request asks for, or begin with it. Raises what is wrong with it."""
        self._by_kind[type(request)](request, attachments, cancel)

    def _hello(self, request: HelloRequest, *_: Any) -> None:
        if request.protocol != PROTOCOL:
            raise Incompatible(f"protocol is {request.protocol}, but mlx-smolvlm {__version__} speaks {PROTOCOL}")
        versions = {"mlx_smolvlm": __version__, "mlx": version("mlx"), "python": platform.python_version()}
        self._post(ReadyEvent(request.id, PROTOCOL, versions, mx.default_device().type.name))

    def _ping(self, request: PingRequest, *_: Any) -> None:
        self._post(EndEvent(request.id))

    def _limits(self, request: LimitsRequest, *_: Any) -> None:
        for name in ("cache_bytes", "memory_bytes"):
            if (getattr(request, name) or 0) < 0:
                raise ValueError(f"{name} is {getattr(request, name)}, expected 0 or more")
        if request.cache_bytes is not None:
            mx.set_cache_limit(request.cache_bytes)
        if request.memory_bytes is not None:
            mx.set_memory_limit(request.memory_bytes)
        self._post(EndEvent(request.id))

    # Models

    def _model(self, number: int) -> LoadedModel:
        if number not in self._models:
            raise Released(f"there is no model {number}; load it first")
        return self._models[number]

    def _load(self, request: LoadRequest, _: Bytes, cancel: Event) -> None:
        if request.id in self._models:
            raise ValueError(f"there is a model {request.id} already; unload it, or choose another id")
        self._schedule.add_job(request.id, None, loading(request, cancel, self._models))

    def _unload(self, request: UnloadRequest, *_: Any) -> None:
        released = Released(f"the model {request.model} was unloaded")
        self._schedule.end_all_of(request.model, self._model(request.model), released)
        self._sessions = {n: pair for n, pair in self._sessions.items() if pair[0] != request.model}
        del self._models[request.model]
        gc.collect()
        mx.clear_cache()
        self._post(EndEvent(request.id))

    def _respond(self, request: RespondRequest, attachments: Bytes, cancel: Event) -> None:
        loaded = self._model(request.model)
        options, media_options = resolve_options(None, None, request.options)
        batch_request = BatchRequest(
            request.prompt,
            sources(request.images, attachments),
            sources(request.videos, attachments),
            options,
            media_options,
        )
        try:
            refuse_single_options(options)
        except ValueError:
            job = answering_alone(request.id, loaded, batch_request, options, media_options, cancel)
            self._schedule.add_job(request.id, request.model, job)
        else:
            self._schedule.add_row(loaded, batch_request, request.id, options, cancel)

    def _warm_up(self, request: WarmUpRequest, *_: Any) -> None:
        loaded = self._model(request.model)
        black = np.zeros((8, 8, 3), np.uint8)
        generate_text(loaded.model, loaded.processor, "?", images=[black], max_tokens=1, do_image_splitting=False)
        self._post(EndEvent(request.id))

    # Captions

    def _captions(self, request: CaptionsRequest, _: Bytes, cancel: Event) -> None:
        loaded = self._model(request.model)
        options, media_options = resolve_options(None, None, request.options)
        source, steps = caption_pushed_frames(
            loaded.model,
            loaded.processor,
            request.prompt,
            lambda frame: loaded.processor.video_tile(frame[0].array(frame[1])),
            window_s=request.window_s,
            every_s=request.every_s,
            options=options,
            media_options=media_options,
            cancel=cancel,
        )
        self.sources[request.id] = source
        self._schedule.add_job(request.id, request.model, captioning(request.id, steps))
        self._post(StartedEvent(request.id))

    def _finish_frames(self, request: FinishFramesRequest, *_: Any) -> None:
        source = self.sources.get(request.source)
        if source is not None:  # else the captions have ended already
            source.finish()
        self._post(EndEvent(request.id))

    # Sessions

    def _session(self, number: int) -> tuple[int, Session]:
        if number not in self._sessions:
            raise Released(f"there is no session {number}; create or load it first")
        return self._sessions[number]

    def _model_for_session(self, request: SessionCreateRequest | SessionLoadRequest) -> LoadedModel:
        if request.id in self._sessions:
            raise ValueError(f"there is a session {request.id} already; close it, or choose another id")
        return self._model(request.model)

    def _create_session(self, request: SessionCreateRequest, *_: Any) -> None:
        loaded = self._model_for_session(request)
        session = Session(loaded.model, loaded.processor, system=request.system, max_feature_bytes=MAX_FEATURE_BYTES)
        self._sessions[request.id] = (request.model, session)
        self._post(EndEvent(request.id))

    def _load_session(self, request: SessionLoadRequest, *_: Any) -> None:
        loaded = self._model_for_session(request)
        self._sessions[request.id] = (request.model, Session.load(request.path, loaded.model, loaded.processor))
        self._post(EndEvent(request.id))

    def _answer(self, number: int, pair: tuple[int, Session], steps: Any) -> None:
        model, session = pair
        self._schedule.add_job(number, model, answering(number, steps, session.prompt_cache))

    def _ask(self, request: SessionAskRequest, attachments: Bytes, cancel: Event) -> None:
        pair = self._session(request.session)
        resolve_options(None, None, request.options)  # names that are no options, such as those of other arguments
        steps: Any = pair[1].ask(
            request.prompt,
            images=sources(request.images, attachments),
            videos=sources(request.videos, attachments),
            cancel=cancel,
            **request.options,
        )
        self._answer(request.id, pair, steps)

    def _edit(self, request: SessionEditRequest, attachments: Bytes, cancel: Event) -> None:
        pair = self._session(request.session)
        resolve_options(None, None, request.options)

        def given(inputs: Sequence[ImageInput | VideoInput] | None) -> list[Any] | None:
            return None if inputs is None else sources(inputs, attachments)

        steps: Any = pair[1].edit(
            request.prompt,
            images=given(request.images),
            videos=given(request.videos),
            cancel=cancel,
            **request.options,
        )
        self._answer(request.id, pair, steps)

    def _regenerate(self, request: SessionRegenerateRequest, _: Bytes, cancel: Event) -> None:
        pair = self._session(request.session)
        resolve_options(None, None, request.options)
        steps: Any = pair[1].regenerate(cancel=cancel, **request.options)
        self._answer(request.id, pair, steps)

    def _undo(self, request: SessionUndoRequest, *_: Any) -> None:
        self._session(request.session)[1].undo()
        self._post(EndEvent(request.id))

    def _turns(self, request: SessionTurnsRequest, *_: Any) -> None:
        self._post(EndEvent(request.id, turns(self._session(request.session)[1])))

    def _save(self, request: SessionSaveRequest, *_: Any) -> None:
        self._session(request.session)[1].save(request.path)
        self._post(EndEvent(request.id))

    def _close_session(self, request: SessionCloseRequest, *_: Any) -> None:
        self._session(request.session)
        del self._sessions[request.session]
        self._post(EndEvent(request.id))
