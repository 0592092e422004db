"""The one model that is served: its names, and what `/v1/models` says of it."""

import re
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..command_line.adapter_arguments import adapter_sources, loading_options
from ..options import quoted
from .errors import ApiError, bad_request
from .settings import ServerSettings

if TYPE_CHECKING:
    from ..engine.rows import Rows
    from ..model.smolvlm import SmolVLM
    from ..processor.processor import Processor

DEMO_ID = "smolvlm-demo"
STARTED_S = int(time.time())


class ServedModel:
    """What requests may call the model.

    Attributes:
        id: its name in answers: a Hub id as it is, the last part of a folder's path.
        names: all names, `id` first.
    """

    def __init__(self, settings: ServerSettings):
        self._any = settings.any_model
        self.id = model_id(settings)
        names = [self.id, self.id.rpartition("/")[2], *settings.aliases]
        self.names = list(dict.fromkeys(names))

    def check(self, body: Mapping[str, Any]) -> None:
        """Raise ApiError if a request names another model: none is ever loaded for a request."""
        name = body.get("model")
        if name is None or name == "" or (self._any and isinstance(name, str)):
            return
        if not isinstance(name, str):
            raise bad_request(f"model is {quoted(name)}, expected a name", "model")
        if name not in self.names:
            known = ", ".join(self.names)
            message = f"there is no model {quoted(name)} here; this server has {known}"
            raise ApiError(404, "model_not_found", message, "model")

    def card(self, processor: "Processor | None") -> dict[str, Any]:
        """An entry of `/v1/models`; the processor tells the length of the context, once there is one."""
        card: dict[str, Any] = {
            "id": self.id,
            "object": "model",
            "created": STARTED_S,
            "owned_by": "mlx-smolvlm",
            "aliases": self.names[1:],
            "architecture": {"input_modalities": ["text", "image", "video"], "output_modalities": ["text"]},
        }
        if processor is not None:
            length = processor.config.context_length
            card |= {"max_model_len": length, "meta": {"n_ctx": length, "n_ctx_train": length}}
        return card


def load_served(settings: ServerSettings) -> "tuple[SmolVLM, Processor]":
    """The model that the settings name, and its processor. Raises what `load` raises."""
    from ..api.loading import DEMO_MODEL, load

    named = Namespace(model=settings.model, adapter_path=settings.adapter_path, dtype=settings.dtype)
    options = loading_options(named)  # which may find the base that the adapters name
    return load(named.model or DEMO_MODEL, **options)


def make_rows(settings: ServerSettings, model: "SmolVLM", processor: "Processor", refill: Callable[[], None]) -> "Rows":
    """`Rows` of the model, within the bounds of the settings; `refill` adds requests."""
    from ..engine.rows import Rows

    return Rows(
        model,
        processor,
        batch_size=settings.rows,
        max_cache_bytes=settings.max_cache_bytes,
        max_feature_bytes=settings.max_feature_bytes,
        max_prefix_bytes=settings.max_prefix_bytes,
        kv_bits=settings.kv_bits,
        kv_group_size=settings.kv_group_size,
        quantized_kv_start=settings.quantized_kv_start,
        refill=refill,
    )


def model_id(settings: ServerSettings) -> str:
    """The name of the model in answers; where only adapters are named, that of the first."""
    model = settings.model
    if model is None and settings.adapter_path:
        model = adapter_sources(settings.adapter_path)[0][0]
    if model is None:
        return DEMO_ID
    is_hub_id = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", model) and not Path(model).expanduser().is_dir()
    return model if is_hub_id else Path(model).expanduser().resolve().name or DEMO_ID


async def list_models(request: Request) -> Response:
    """`GET /v1/models`."""
    state = request.app.state
    return JSONResponse({"object": "list", "data": [state.model.card(state.engine.processor)]})


async def one_model(request: Request) -> Response:
    """`GET /v1/models/{id}`."""
    state = request.app.state
    state.model.check({"model": request.path_params["id"]})
    return JSONResponse(state.model.card(state.engine.processor))
