"""`/openapi.json`: the interface as one document, OpenAPI 3.1."""

from functools import cache
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ... import __version__
from ..settings import ServerSettings
from .openapi_answers import answer_schemas
from .openapi_parts import Schema, ref
from .openapi_schemas import request_schemas

PATH = "/openapi.json"
# What any request may meet; what a body may, too; and what only answers meet.
ALWAYS = {401: "No or a wrong API key.", 403: "A Host or Origin that is not allowed.", 500: "A fault of the server."}
OF_BODIES = {
    400: "Something of the request is wrong; `param` names it.",
    404: "Another model.",
    408: "The body did not come in time.",
    413: "Too large, or too many media.",
    415: "Not JSON, or encoded.",
    503: "The model is being loaded, or there is no room; try again.",
    504: "It took too long.",
}
REQUEST_ID = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}


def openapi_routes() -> list[Route]:
    """`GET /openapi.json`."""
    return [Route(PATH, show_document)]


async def show_document(request: Request) -> Response:
    """`GET /openapi.json`."""
    return JSONResponse(document(request.app.state.settings))


@cache
def document(settings: ServerSettings) -> dict[str, Any]:
    """The document; whether a key is needed, and how large requests may be, depends on the settings."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "SmolVLM server",
            "version": __version__,
            "summary": "Questions about images and videos, in the forms of OpenAI and Ollama.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [] if settings.api_key is None else [{"bearer": []}, {"header": []}],
        "paths": _paths(),
        "components": {
            "schemas": {**request_schemas(settings), **answer_schemas()},
            "headers": {
                "RequestId": {
                    "description": "Names the request in the log.",
                    "required": True,
                    "schema": {"type": "string"},
                }
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            },
        },
    }


def _paths() -> dict[str, Any]:
    paths: dict[str, Any] = {
        "/health": {"get": _health()},
        "/metrics": {"get": _get("Counts and times, for Prometheus.", "text/plain", {"type": "string"})},
        PATH: {"get": _get("This document.", "application/json", {"type": "object"})},
        "/v1/responses": {
            "post": _post(
                "Answer, in the form of the newer interface.", "ResponsesRequest", "Response", "text/event-stream"
            )
        },
        "/api/version": {"get": _get("The version of Ollama's interface.", "application/json", ref("OllamaVersion"))},
        "/api/tags": {"get": _get("The names of the models.", "application/json", ref("OllamaTags"))},
        "/api/show": {"post": _post("What a model can do.", "OllamaShowRequest", "OllamaModel", error="OllamaError")},
    }
    for name in ("Chat", "Generate"):
        operation = _post(
            "Answer, in Ollama's form: lines of JSON, unless `stream` is false.",
            f"Ollama{name}Request",
            f"Ollama{name}",
            "application/x-ndjson",
            "OllamaError",
        )
        paths[f"/api/{name.lower()}"] = {"post": operation}
    for prefix in ("/v1", ""):
        paths |= {
            f"{prefix}/models": {"get": _get("The models.", "application/json", ref("ModelList"))},
            f"{prefix}/models/{{model}}": {"get": _one_model()},
            f"{prefix}/chat/completions": {
                "post": _post("Answer a conversation.", "ChatRequest", "ChatCompletion", "text/event-stream")
            },
            f"{prefix}/chat/completions/input_tokens": {
                "post": _post("Count the tokens of a conversation.", "ChatRequest", "InputTokens")
            },
            f"{prefix}/completions": {
                "post": _post("Continue a prompt.", "CompletionRequest", "Completion", "text/event-stream")
            },
        }
    return paths


def _response(description: str, *contents: tuple[str, Schema]) -> dict[str, Any]:
    return {
        "description": description,
        "headers": REQUEST_ID,
        "content": {media_type: {"schema": schema} for media_type, schema in contents},
    }


def _errors(statuses: dict[int, str], error: str = "Error") -> dict[str, Any]:
    content = ("application/json", ref(error))
    return {str(status): _response(text, content) for status, text in sorted(statuses.items())}


def _get(summary: str, media_type: str, schema: Schema) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": _response("So it is.", (media_type, schema)), **_errors(ALWAYS)}}


def _health() -> dict[str, Any]:
    operation = _get("Whether questions are answered. Needs no key.", "application/json", ref("Health"))
    operation["responses"]["503"] = _response("Not yet, or no more.", ("application/json", ref("Health")))
    return {**operation, "security": []}


def _one_model() -> dict[str, Any]:
    operation = _get("A model, by one of its names.", "application/json", ref("Model"))
    operation["responses"] |= _errors({404: "Another model."})
    parameter = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    return {**operation, "parameters": [parameter]}


def _post(summary: str, body: str, answer: str, streamed: str | None = None, error: str = "Error") -> dict[str, Any]:
    contents = [("application/json", ref(answer))]
    if streamed is not None:
        contents.append((streamed, {"description": "The answer as it is made, if `stream` is true."}))
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": ref(body)}}},
        "responses": {"200": _response("The answer.", *contents), **_errors({**ALWAYS, **OF_BODIES}, error)},
    }
