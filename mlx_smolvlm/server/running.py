"""Runs the app on uvicorn: the socket, startup lines, signals, and an orderly end."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from ..command_line.signals import handled_by
from ..command_line.standard_streams import say
from ..command_line.waiting import Waiting
from .app import create_app
from .engine_thread import Engine
from .http.protocol import guarded_protocol
from .models import DEMO_ID, ServedModel, ServedModels, load_served
from .settings import MIB, ServerSettings

if TYPE_CHECKING:
    from ..model.smolvlm import SmolVLM
    from ..processor.processor import Processor

INTERRUPTED = 130
POLL_S = 0.02
LAST_S = 2.0  # for requests that have no answer yet, after those that have


class ServerRun:
    """One run of the server, from the socket to the last answer.

    Attributes:
        url: where it listens.
        engine: its engine.
    """

    def __init__(self, settings: ServerSettings, *, opens_page: bool = False):
        """
        Raises:
            OSError: the address cannot be listened on.
        """
        self.engine = Engine(settings, self._load)
        self._settings = settings
        self._opens_page = opens_page
        app = create_app(settings, self.engine)
        self._socket = listening_socket(settings.host, settings.port)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.url = f"http://{host}:{self._socket.getsockname()[1]}/"
        config = uvicorn.Config(
            app,
            http=guarded_protocol(settings),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",  # the engine is started and ended here
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=settings.shutdown_s + LAST_S,  # type: ignore[arg-type]  # fractions do
        )
        self._server = _Server(config, self.engine, settings.shutdown_s)

    def serve(self) -> int:
        """Serve until a signal comes. The main thread only.

        Returns:
            The exit status.

        Raises:
            Exception: what loading the model has raised.
        """
        with handled_by(self._handle):
            say(f"smolvlm server at {self.url}")
            self.engine.start()
            asyncio.run(self._run())
        self.engine.stop()
        if self.engine.failure is not None:
            raise self.engine.failure
        return 0

    def _load(self) -> "dict[str, tuple[SmolVLM, Processor]]":
        with Waiting() as waiting:
            waiting.tell("loading the model")
            return load_served(self._settings)

    async def _run(self) -> None:
        watching = asyncio.ensure_future(self._watch())
        try:
            await self._server.serve([self._socket])
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self) -> None:
        """Say when the model is there, or end the server if it is not to be had."""
        while not self.engine.ready.is_set():
            await asyncio.sleep(POLL_S)
        if self.engine.failure is not None:
            self._server.should_exit = True
        elif self.engine.state == "ok":
            for line in facts(self.engine):
                say(line)
            if self._opens_page:
                import webbrowser

                await asyncio.to_thread(webbrowser.open, self.url)

    def _handle(self, number: int, _: FrameType | None) -> None:
        """Stop; a second signal ends the process at once."""
        if self._server.should_exit:
            os._exit(INTERRUPTED if number == signal.SIGINT else 128 + number)
        self._server.should_exit = True  # before anything is said: the second signal may come meanwhile
        if not self.engine.is_idle:
            say(f"stopping; answers in flight have {self._settings.shutdown_s:g} s. Once more stops at once")


class _Server(uvicorn.Server):
    """Leaves signals to `ServerRun`, and gives answers in flight their time and then an error."""

    def __init__(self, config: uvicorn.Config, engine: Engine, shutdown_s: float):
        super().__init__(config)
        self._engine = engine
        self._shutdown_s = shutdown_s

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None: they are `ServerRun`'s."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse what comes, wait for what is in flight, and end the rest with errors."""
        self._engine.begin_closing()
        ending = asyncio.ensure_future(self._end_late_answers())
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)

    async def _end_late_answers(self) -> None:
        await asyncio.sleep(self._shutdown_s)
        self._engine.stop(0)


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that is bound to an address.

    Raises:
        OSError: there is no such address, or it is taken; in one line, with what to do.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise OSError(f"{host} is no address of this machine ({error}); choose another --host") from None
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # not refused for connections that are ending
        listening.bind(address)
        listening.listen(1)
    except OSError as error:
        listening.close()
        reason, advice = os.strerror(error.errno or 0), "choose another --host"
        if error.errno == errno.EADDRINUSE:
            reason, advice = "it is taken by another program", "choose another --port, or stop that program"
        elif error.errno == errno.EACCES:
            advice = "choose a --port above 1023"
        raise OSError(f"cannot listen on {host}:{port}: {reason}; {advice}") from None
    return listening


def facts(engine: Engine) -> list[str]:
    """What is served, on which device, and within which limits."""
    import mlx.core as mx

    settings, context = engine.settings, engine.processor.config.context_length
    dtype = str(engine.model.language_model.norm.weight.dtype).removeprefix("mlx.core.")
    device = "GPU" if mx.default_device() == mx.gpu else "CPU"
    models = [model for model in ServedModels(settings).all if model.id in engine.pairs]
    name = models[0].id
    demo = ", which knows colored shapes only (--model names another)" if name == DEMO_ID else ""
    fetched = "public addresses" if settings.fetch_public else ""
    fetched = " and ".join(filter(None, [fetched, ", ".join(settings.fetch_hosts)])) or "none"
    return [
        f"models: {', '.join(map(_told, models))}" if settings.adapter_path else f"model: {name}{demo}",
        f"device: {device}, {dtype}; context {context} tokens",
        f"limits: {settings.rows} answers at a time, {settings.max_waiting} waiting, "
        f"{settings.max_body_bytes // MIB} MiB a request; addresses fetched: {fetched}",
    ]


def _told(model: ServedModel) -> str:
    if model.parent is None:
        return f"{model.id} (no adapter)"
    return f"{model.id} (all adapters)" if model.is_sum else model.id
