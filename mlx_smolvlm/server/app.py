"""The ASGI app: routes, and what they share."""

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from . import metrics
from .description.openapi import openapi_routes
from .endpoints.chat_completions import chat_completions, input_tokens
from .endpoints.completions import completions
from .endpoints.ollama import ollama_routes
from .endpoints.responses import responses_routes
from .engine_thread import Engine
from .http.guards import middleware
from .http.origins import HostCheck, OriginCheck
from .intake.media_intake import Intake
from .intake.scratch import scratch_folder
from .models import ServedModels, list_models, one_model
from .page import page_routes
from .settings import ServerSettings

HEALTH = "/health"


def create_app(settings: ServerSettings | None = None, engine: Engine | None = None) -> Starlette:
    """The server as an ASGI app, which other apps may mount. Its lifespan starts and ends the engine.

    Args:
        settings: which model, and all limits; None for the defaults.
        engine: one that the caller starts and stops; None makes one.

    Raises:
        ValueError: an allowed host or origin that can be none; two models of the same name.
    """
    settings = settings or ServerSettings()
    OriginCheck(settings.cors_origins)  # the middleware would refuse them at the first request only
    HostCheck(settings.host, settings.allowed_hosts)
    models = ServedModels(settings)
    own = Engine(settings) if engine is None else None

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if own is not None:
            own.start()
        try:
            yield
        finally:
            app.state.intake.close()
            if own is not None:
                own.stop()

    with scratch_folder():  # what a killed server has left is removed now
        pass
    page = page_routes()
    routes: list[BaseRoute] = [*page, *_routes()]
    public_paths = [HEALTH, *(route.path for route in page)]
    app = Starlette(routes=routes, middleware=middleware(settings, routes, public_paths), lifespan=lifespan)
    app.state.settings = settings
    app.state.engine = engine or own
    app.state.intake = Intake(settings)
    app.state.models = models
    return app


def _routes() -> list[BaseRoute]:
    routes: list[BaseRoute] = [Route(HEALTH, health), Route("/metrics", show_metrics)]
    for prefix in ("/v1", ""):
        routes += [
            Route(f"{prefix}/models", list_models),
            Route(f"{prefix}/models/{{id:path}}", one_model),
            Route(f"{prefix}/chat/completions", chat_completions, methods=["POST"]),
            Route(f"{prefix}/chat/completions/input_tokens", input_tokens, methods=["POST"]),
            Route(f"{prefix}/completions", completions, methods=["POST"]),
        ]
    return [*routes, *responses_routes(), *ollama_routes(), *openapi_routes()]


async def health(request: Request) -> Response:
    """`GET /health`: 200 where questions are answered, else 503."""
    state: str = request.app.state.engine.state
    return JSONResponse({"status": state}, 200 if state == "ok" else 503)


async def show_metrics(request: Request) -> Response:
    """`GET /metrics`."""
    engine: Engine = request.app.state.engine
    return PlainTextResponse(engine.metrics.text(engine.gauges()), media_type=metrics.CONTENT_TYPE)
