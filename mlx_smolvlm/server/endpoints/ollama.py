"""A part of Ollama's interface: chat and generate, and what clients ask before: version, names, capabilities.

Home Assistant and editors use it. Answers are lines of JSON (NDJSON) unless `stream` is false; times are in
nanoseconds.
"""

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ...options import quoted
from ..errors import ApiError, bad_request
from ..http.streaming import StreamedAnswer, held_while_connected, json_bytes, while_connected
from ..http.strict_json import read_body
from ..intake.ollama_request import OllamaRequest, read_chat, read_generate, served_name
from ..intake.translation import in_words, read_translated
from ..intake.unknown_fields import UnknownFields
from ..models import STARTED_S, ServedModel, listed, served_pair
from .answers import AnswerTexts, finish_reason, usage
from .chat_completions import begun

if TYPE_CHECKING:
    from ...model.smolvlm import SmolVLM
    from ..intake.chat_request import ChatRequest
    from .answering import Generation

VERSION = "0.12.0"  # of Ollama, whose interface this is; editors ask for a recent one
NDJSON = "application/x-ndjson"
NS_PER_S = 1_000_000_000


def ollama_routes() -> list[Route]:
    """`/api/version`, `/api/tags`, `/api/show`, `/api/chat` and `/api/generate`."""
    return [
        Route("/api/version", version),
        Route("/api/tags", tags),
        Route("/api/show", show, methods=["POST"]),
        Route("/api/chat", chat, methods=["POST"]),
        Route("/api/generate", generate, methods=["POST"]),
    ]


async def version(request: Request) -> Response:
    """`GET /api/version`."""
    return JSONResponse({"version": VERSION})


async def tags(request: Request) -> Response:
    """`GET /api/tags`: the names of the models."""
    cards = [
        _card(model, name, None if pair is None else pair[0])
        for model, pair in listed(request)
        for name in (model.id, *model.aliases)
    ]
    return JSONResponse({"models": cards})


async def show(request: Request) -> Response:
    """`POST /api/show`: what a model is and can do."""
    state = request.app.state
    body = await read_body(request, dict)
    name = body.get("model") or body.get("name")
    if not isinstance(name, str) or not name:
        raise bad_request(f"model is {quoted(name)}, expected a name", "model")
    UnknownFields(state.settings.strict).check(
        body, "", ("model", "name"), ("verbose", "system", "template", "options")
    )
    served = request.state.served = state.models.find({"model": served_name(name)})
    state.engine.check_ready()
    model, processor = served_pair(request)
    card = _card(served, served.id, model)
    architecture = card["details"]["family"]
    return JSONResponse(
        {
            "modelfile": f"FROM {card['name']}\n",
            "parameters": "",
            "template": "",
            "details": card["details"],
            "model_info": {
                "general.architecture": architecture,
                "general.basename": served.id,
                f"{architecture}.context_length": processor.config.context_length,
            },
            "capabilities": ["completion", "vision"],
            "modified_at": card["modified_at"],
        }
    )


async def chat(request: Request) -> Response:
    """`POST /api/chat`."""
    return await _answer(request, read_chat, lambda text: {"message": {"role": "assistant", "content": text}})


async def generate(request: Request) -> Response:
    """`POST /api/generate`."""
    return await _answer(request, read_generate, lambda text: {"response": text})


async def _answer(
    request: Request, read: Callable[[Mapping[str, Any]], OllamaRequest], form: Callable[[str], dict[str, Any]]
) -> Response:
    """Answer in the form of one of the two endpoints."""
    state = request.app.state

    def checked_body(body: dict[str, Any]) -> tuple[OllamaRequest, "ChatRequest"]:
        asked = read(body)
        return asked, read_translated(request, asked.chat, asked.rename)

    asked, checked = await read_body(request, checked_body)
    state.engine.check_ready()
    answer = _Answer(asked.model or request.state.served.id, form)
    with in_words(asked.rename):
        if asked.is_empty:  # which asks to load the model, or to unload it
            done = {**answer.line(""), "done": True, "done_reason": asked.load_reason}
            return Response(json_bytes(done) + b"\n", media_type=NDJSON if asked.stream else "application/json")
        if not asked.stream:

            async def whole() -> dict[str, Any]:
                async with AsyncExitStack() as held:
                    generation = await begun(request, checked, held)
                    answers = await AnswerTexts.of(generation)
                    return answer.last(generation, answers.texts[0], answers.logprobs[0])

            return JSONResponse(await while_connected(request, whole()))
        generation, held = await held_while_connected(request, lambda held: begun(request, checked, held))
    return StreamedAnswer(_lines(generation, answer), held, _error_line, NDJSON)


async def _lines(generation: "Generation", answer: "_Answer") -> AsyncIterator[bytes]:
    answers = AnswerTexts(1, generation.plan.processor)
    pending: list[dict[str, Any]] = []
    async for item in generation.events():
        if not isinstance(item, tuple):
            continue
        pending += answers.add(*item)
        if item[1].text:
            yield json_bytes(answer.line(item[1].text, pending)) + b"\n"
            pending = []
    yield json_bytes(answer.last(generation, "", pending)) + b"\n"


class _Answer:
    """The lines of an answer."""

    def __init__(self, model: str, form: Callable[[str], dict[str, Any]]):
        self._model = model
        self._form = form
        self._started_s = time.perf_counter()

    def line(self, text: str, logprobs: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        """A line with a part of the answer."""
        values = {"model": self._model, "created_at": _timestamp(time.time()), **self._form(text), "done": False}
        return {**values, "logprobs": logprobs} if logprobs else values

    def last(self, generation: "Generation", text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
        """The line that ends the answer, with what it took."""
        job, tokens = generation.jobs[0], usage(generation)
        return {
            **self.line(text, logprobs),
            "done": True,
            "done_reason": finish_reason(generation.latest[0]),
            "total_duration": _ns(time.perf_counter() - self._started_s),
            "load_duration": 0,
            "prompt_eval_count": tokens["prompt_tokens"],
            "prompt_eval_duration": _ns(job.first_s - job.begun_s),
            "eval_count": tokens["completion_tokens"],
            "eval_duration": _ns(job.last_s - job.first_s),
        }


def _error_line(error: ApiError) -> bytes:
    return json_bytes({"error": error.message}) + b"\n"


def _card(served: ServedModel, name: str, model: "SmolVLM | None") -> dict[str, Any]:
    """An entry of `/api/tags`."""
    tagged = name if ":" in name else f"{name}:latest"
    num_bytes, count, level = _size(model)
    return {
        "name": tagged,
        "model": tagged,
        "modified_at": _timestamp(STARTED_S),
        "size": num_bytes,
        "digest": hashlib.sha256(served.id.encode()).hexdigest(),  # clients compare it only
        "details": {
            "parent_model": served.parent or "",
            "format": "safetensors",
            "family": "smolvlm",
            "families": ["smolvlm"],
            "parameter_size": f"{count / 1e6:.0f}M" if count < 1e9 else f"{count / 1e9:.1f}B",
            "quantization_level": level,
        },
    }


def _size(model: Any) -> tuple[int, int, str]:
    """Bytes, parameters and the kind of the weights; zeros while there is no model."""
    if model is None:
        return 0, 0, ""
    import mlx.core as mx
    from mlx.utils import tree_flatten

    arrays: Any = tree_flatten(model.parameters())
    quantization = model.config.quantization
    bits = quantization["bits"] if quantization else 32
    count = sum(
        array.size * 32 // bits if array.dtype == mx.uint32 else array.size
        for name, array in arrays
        if not (quantization and name.endswith((".scales", ".biases")))
    )
    dtype = str(model.language_model.norm.weight.dtype).removeprefix("mlx.core.")
    return sum(array.nbytes for _, array in arrays), count, f"{bits}-bit" if quantization else dtype


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _ns(seconds: float) -> int:
    return round(max(seconds, 0.0) * NS_PER_S)
