"""The models that are served, one base with adapters and without: their names, and what `/v1/models` says of them."""

import logging
import re
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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

    Pair = tuple[SmolVLM, Processor]
LOG = logging.getLogger("mlx_smolvlm.server")
DEMO_ID = "smolvlm-demo"
BASE = ":base"  # after the model's name, where there are adapters: the model without them
STARTED_S = int(time.time())


@dataclass(frozen=True)
class ServedModel:
    """One of the models.

    Attributes:
        id: its name in answers: a Hub id as it is, the last part of a folder's path.
        aliases: further names.
        parent: the id of the model without adapters; None for that one.
        is_sum: whether it has all adapters.
    """

    id: str
    aliases: tuple[str, ...] = ()
    parent: str | None = None
    is_sum: bool = False

    def card(self, processor: "Processor | None") -> dict[str, Any]:
        """An entry of `/v1/models`; the processor tells the length of the context, once there is one."""
        card: dict[str, Any] = {
            "id": self.id,
            "object": "model",
            "created": STARTED_S,
            "owned_by": "mlx-smolvlm",
            "aliases": list(self.aliases),
            "architecture": {"input_modalities": ["text", "image", "video"], "output_modalities": ["text"]},
        }
        if self.parent is not None:
            card["parent"] = self.parent
        if processor is not None:
            length = processor.config.context_length
            card |= {"max_model_len": length, "meta": {"n_ctx": length, "n_ctx_train": length}}
        return card


class ServedModels:
    """What requests may call the models.

    Without adapters there is one. With adapters, its name stands for the model with all of them, as in the other
    commands; each adapter is a model by its own name, and `NAME:base` is the model without any.

    Attributes:
        all: the models, the first of which answers requests that name none.
        adapter_names: of the adapters, in the order in which they were given.
    """

    def __init__(self, settings: ServerSettings):
        """Raises ValueError: two things that would have the same name."""
        self._any = settings.any_model
        sources = [path for path, _ in adapter_sources(settings.adapter_path)]
        name = "" if settings.model is None and sources else _name(settings.model)
        aliases = [name.rpartition("/")[2], *settings.aliases]
        self.adapter_names = _adapter_names(sources, {name, *aliases})
        if not name:  # the base is not known before the adapters are read
            name = "+".join(self.adapter_names)
            aliases[0] = name.rpartition("/")[2] if len(sources) == 1 else name
        aliases = [alias for alias in dict.fromkeys(aliases) if alias != name]
        if not sources:
            self.all = [ServedModel(name, tuple(aliases))]
            return
        base = f"{name}{BASE}"
        self.all = [ServedModel(name, tuple(aliases), base, is_sum=len(sources) > 1)]
        self.all += [ServedModel(adapter, (), base) for adapter in self.adapter_names if adapter != name]
        self.all.append(ServedModel(base))
        taken = [other for model in self.all for other in (model.id, *model.aliases)]
        for other in taken:
            if taken.count(other) > 1:
                raise ValueError(f"two of the served models would be called {quoted(other)}; choose another --alias")

    @property
    def id(self) -> str:
        """The name of the model that answers requests that name none."""
        return self.all[0].id

    @property
    def names(self) -> list[str]:
        """All names."""
        return [name for model in self.all for name in (model.id, *model.aliases)]

    def find(self, body: Mapping[str, Any]) -> ServedModel:
        """The model that a request names. None is ever loaded for a request.

        Raises:
            ApiError: it names another.
        """
        name = body.get("model")
        if name is None or name == "":
            return self.all[0]
        if not isinstance(name, str):
            raise bad_request(f"model is {quoted(name)}, expected a name", "model")
        for model in self.all:
            if name == model.id or name in model.aliases:
                return model
        if self._any:
            return self.all[0]
        message = f"there is no model {quoted(name)} here; this server has {', '.join(self.names)}"
        raise ApiError(404, "model_not_found", message, "model")


def load_served(settings: ServerSettings) -> "dict[str, Pair]":
    """The models and their processors, by id. Adapters share the base's weights.

    The one with all adapters is left out, and the log says why, where several adapters cannot be used together.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: as `load`.
    """
    from ..api.adapter_set import AdapterSet
    from ..api.finding import open_adapters
    from ..api.loading import DEMO_MODEL, load

    models = ServedModels(settings)
    named = Namespace(model=settings.model, adapter_path=settings.adapter_path, dtype=settings.dtype)
    options = loading_options(named)  # which may find the base that the adapters name
    sources = options.pop("adapters", None)
    if sources is None:
        return {models.id: load(named.model or DEMO_MODEL, **options)}
    open_adapters(sources)  # what is wrong with them is said before a model is downloaded
    adapters = AdapterSet(named.model, **options)
    pairs: dict[str, Pair] = {}
    for name, source in zip(models.adapter_names, sources, strict=True):
        adapters.add(name, source)
        pairs[name] = adapters.pair(name)
    together = models.id
    if len(sources) == 1:
        pairs = {together: pairs[models.adapter_names[0]], **pairs}
    else:
        try:
            adapters.add(together, sources)
            pairs = {together: adapters.pair(together), **pairs}
        except ValueError as error:
            LOG.warning("the adapters cannot be used together, so requests have to name one of them: %s", error)
    return {**pairs, models.all[-1].id: adapters.pair()}


def by_id(settings: ServerSettings, loaded: "Pair | Mapping[str, Pair]") -> "dict[str, Pair]":
    """What was loaded by the ids of models; a pair alone is the one model that the settings name."""
    return dict(loaded) if isinstance(loaded, Mapping) else {ServedModels(settings).id: loaded}


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


def served_pair(request: Request) -> "Pair":
    """The model that a request has named, whose `state.served` says which, and its processor.

    Raises:
        ApiError: the adapters cannot be used together, and the request names none.
    """
    state = request.app.state
    pair: Pair | None = state.engine.pairs.get(request.state.served.id)
    if pair is None:
        message = f"the adapters of this server cannot be used together; name one of {', '.join(state.engine.pairs)}"
        raise bad_request(message, "model")
    return pair


def listed(request: Request) -> "list[tuple[ServedModel, Pair | None]]":
    """The models that can be asked, each with its model and processor once they are loaded."""
    state = request.app.state
    pairs: dict[str, Pair] = state.engine.pairs
    return [(model, pairs.get(model.id)) for model in state.models.all if model.id in pairs or not pairs]


def _name(path_or_hub_id: str | None) -> str:
    """What to call a model or an adapter: a Hub id as it is, the last part of a folder's path."""
    return DEMO_ID if path_or_hub_id is None else _parts(path_or_hub_id)[-1] or DEMO_ID


def _parts(path_or_hub_id: str) -> Sequence[str]:
    """The parts of a folder's path; a Hub id is one."""
    is_hub_id = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", path_or_hub_id)
    if is_hub_id and not Path(path_or_hub_id).expanduser().is_dir():
        return (path_or_hub_id,)
    folder = Path(path_or_hub_id).expanduser().resolve()
    return folder.parts[1:] or ("",)


def _adapter_names(sources: Sequence[str], taken: set[str]) -> list[str]:
    """What to call adapters: where two would be called the same, with the folders that they are in.

    Raises:
        ValueError: that does not help.
    """
    parts = [_parts(source) for source in sources]
    counts = [1] * len(sources)
    while True:
        names = ["/".join(own[-count:]) for own, count in zip(parts, counts, strict=True)]
        clashing = [number for number, name in enumerate(names) if name in taken or names.count(name) > 1]
        if not clashing:
            return names
        longer = [number for number in clashing if counts[number] < len(parts[number])]
        if not longer:
            source = sources[clashing[0]]
            reason = "has a name of the model" if names[clashing[0]] in taken else "is given twice"
            raise ValueError(
                f"--adapter-path {quoted(source, 300)} {reason}; give each adapter once, by a name of its own"
            )
        for number in longer:
            counts[number] += 1


async def list_models(request: Request) -> Response:
    """`GET /v1/models`."""
    cards = [model.card(None if pair is None else pair[1]) for model, pair in listed(request)]
    return JSONResponse({"object": "list", "data": cards})


async def one_model(request: Request) -> Response:
    """`GET /v1/models/{id}`."""
    state = request.app.state
    model = request.state.served = state.models.find({"model": request.path_params["id"]})
    return JSONResponse(model.card(served_pair(request)[1] if state.engine.pairs else None))
