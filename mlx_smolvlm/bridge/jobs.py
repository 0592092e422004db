"""Work that takes many steps, as generators: each `next()` does one unit of it.

A job yields the events of a unit, none of them where there are none, or None where it waits for others. It returns the
event that ends its request.
"""

import time
from collections.abc import Generator, Hashable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread

from ..api.adapter_set import AdapterSet
from ..api.caption_steps import Caption
from ..api.finding import AdapterSource, find_checkpoint, open_adapters
from ..api.generation import GenerationResponse, stream_generate
from ..api.loading import DEMO_MODEL, default_dtype
from ..api.session import Session
from ..engine.prompt_cache import PromptCache, ReadMedium
from ..engine.row import BatchRequest
from ..engine.rows import Rows
from ..media.reporting import reported_to
from ..model.smolvlm import SmolVLM
from ..options import GenerationOptions, MediaOptions
from ..processor.processor import Processor
from .events import (
    BridgeEvent,
    CaptionEvent,
    EndEvent,
    LoadedEvent,
    ProgressEvent,
    error_event,
    response_token,
    row_token,
)
from .requests import LoadRequest

Job = Generator[Sequence[BridgeEvent] | None, None, BridgeEvent]
BATCH_SIZE = 8  # answers that are made together; further ones wait
MAX_FEATURE_BYTES = 64 * 1024**2  # an app shares its memory with others, so less than a server keeps
MAX_PREFIX_BYTES = 64 * 1024**2
MAX_CACHE_BYTES = 1024**3


@dataclass(eq=False)
class LoadedModel:
    """A model, and the answers of it that are made together.

    Attributes:
        model, processor: as from `load`.
        base: what the model is of, alone or with adapters; others may share it.
        base_files: its files and its type, which tell whether it can be shared.
        rows: by the options of their key-value cache; made when the first answer is asked for.
        asked: requests in `rows`.
    """

    model: SmolVLM
    processor: Processor
    base: AdapterSet
    base_files: Hashable
    rows: dict[Hashable, Rows] = field(default_factory=dict)
    asked: set[int] = field(default_factory=set)

    def add(self, request: BatchRequest, number: int, options: GenerationOptions, cancel: Event) -> None:
        """Ask for an answer. Raises ValueError: options that only answers made alone can have."""
        kind = options.cache_options
        if kind not in self.rows:
            for other in [other for other, rows in self.rows.items() if not rows]:
                self.rows.pop(other).close()  # an app seldom goes back and forth, and each kind has caches of its own
            self.rows[kind] = Rows(
                self.model,
                self.processor,
                batch_size=BATCH_SIZE,
                max_cache_bytes=MAX_CACHE_BYTES,
                max_feature_bytes=MAX_FEATURE_BYTES,
                max_prefix_bytes=MAX_PREFIX_BYTES,
                kv_bits=options.kv_bits,
                kv_group_size=options.kv_group_size,
                quantized_kv_start=options.quantized_kv_start,
            )
        self.rows[kind].add(request, options, key=number, cancel=cancel)
        self.asked.add(number)

    def step(self) -> list[BridgeEvent]:
        """One step of the answers that are made together."""
        try:
            steps = [step for rows in self.rows.values() if rows for step in rows.step()]
        except BaseException as error:  # whose fault it is cannot be told, so all of them end
            return self.end_all(error)
        events: list[BridgeEvent] = []
        for step in steps:
            number: int = step.key  # type: ignore[assignment]
            if step.error is not None:
                events.append(error_event(number, step.error))
            else:
                events.append(row_token(step))
            if step.finish_reason is not None:
                self.asked.discard(number)
                if step.error is None:
                    events.append(EndEvent(number))
        return events

    def end_all(self, error: BaseException) -> list[BridgeEvent]:
        """End the answers that are made together with an error."""
        all_rows, self.rows = self.rows, {}
        ended, self.asked = sorted(self.asked), set()
        for rows in all_rows.values():
            rows.close()
        return [error_event(number, error) for number in ended]


def loading(request: LoadRequest, cancel: Event, models: dict[int, LoadedModel]) -> Job:
    """Load a model into `models`. A thread finds the folders, which may be downloaded; weights are loaded here."""
    name: str | Path = DEMO_MODEL if request.model is None else request.model
    reports: SimpleQueue[ProgressEvent | list[Path] | BaseException] = SimpleQueue()
    told_bytes = (0, 0)

    def report(what: str, number: int = 0, total: int = 0) -> None:
        if what:
            reports.put(ProgressEvent(request.id, what, number / total if total else None))

    def report_bytes(done: int, total: int) -> None:
        nonlocal told_bytes
        if (done, total) != told_bytes:
            told_bytes = done, total
            reports.put(ProgressEvent(request.id, "downloading", min(done / total, 1), done, total))

    def find() -> None:
        try:
            with reported_to(report, report_bytes):
                folder = find_checkpoint(name, revision=request.revision)
                reports.put([folder, *(find_checkpoint(adapter.path) for adapter in request.adapters)])
        except BaseException as error:  # whatever it is, it belongs to the request
            reports.put(error)

    Thread(target=find, name="mlx_smolvlm finding a model", daemon=True).start()
    while True:
        if cancel.is_set():  # a download cannot be ended; it is left to itself
            return EndEvent(request.id, {"cancelled": True})
        try:
            found = reports.get(timeout=0.002)
        except Empty:
            yield None
            continue
        if isinstance(found, ProgressEvent):
            yield (found,)
        elif isinstance(found, list):
            break
        else:
            raise found
    yield (ProgressEvent(request.id, "loading the model"),)
    folder, *adapters = found
    weights = [adapter.weight for adapter in request.adapters]
    loaded = models[request.id] = _loaded(folder, list(zip(adapters, weights, strict=True)), request.dtype, models)
    model, processor = loaded.model, loaded.processor
    dtype = str(model.vision_model.post_layernorm.weight.dtype).removeprefix("mlx.core.")
    return LoadedEvent(request.id, request.id, processor.config.context_length, dtype)


def _loaded(
    folder: Path, adapters: Sequence[AdapterSource], dtype: str | None, models: dict[int, LoadedModel]
) -> LoadedModel:
    """A model; its base's arrays are those of another model that was loaded from the same files."""
    open_adapters(adapters)  # what is wrong with them is said before a base is loaded
    stats = [(path.name, path.stat() if path.exists() else path.lstat()) for path in sorted(folder.iterdir())]
    files = tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
    base_files = folder, dtype or default_dtype(), files
    shared = (loaded.base for loaded in models.values() if loaded.base_files == base_files)
    base = next(shared, None) or AdapterSet(folder, dtype=dtype)
    if not adapters:
        return LoadedModel(*base.pair(), base, base_files)
    base.add("adapters", adapters)
    pair = base.pair("adapters")
    base.remove("adapters")
    return LoadedModel(*pair, base, base_files)


def answering(number: int, steps: Generator[GenerationResponse, None, None], cache: PromptCache) -> Job:
    """Make one answer alone: one of a session, or with options that answers made together cannot have."""
    began_s = time.perf_counter()
    before, media = list(cache.token_ids), list(cache.media)
    cached: int | None = None
    with closing(steps):
        for step in steps:
            if cached is None:
                cached = _shared(before, media, step.prompt_ids, cache.media)
            yield (response_token(number, step, cached, time.perf_counter() - began_s),)
    return EndEvent(number)


def answering_alone(
    number: int,
    loaded: LoadedModel,
    request: BatchRequest,
    options: GenerationOptions,
    media_options: MediaOptions,
    cancel: Event,
) -> Job:
    """Make an answer whose options answers made together cannot have."""
    cache = PromptCache()
    steps = stream_generate(
        loaded.model,
        loaded.processor,
        request.messages_or_prompt,
        images=request.images,
        videos=request.videos,
        options=options,
        media_options=media_options,
        prompt_cache=cache,
        cancel=cancel,
    )
    return answering(number, steps, cache)


def captioning(number: int, steps: Generator[Caption | GenerationResponse | None, None, None]) -> Job:
    """Describe frames while they come."""
    with closing(steps):
        for step in steps:
            if isinstance(step, Caption):
                yield (CaptionEvent(number, step),)
            else:
                yield None if step is None else ()
    return EndEvent(number)


def turns(session: Session) -> list[dict[str, str]]:
    """The conversation: text of each question, its answer, and how that ended."""
    return [
        {
            "question": "".join(str(item["text"]) for item in turn.content if item["type"] == "text"),
            "answer": turn.answer,
            "finish_reason": turn.finish_reason,
        }
        for turn in session.turns
    ]


def _shared(before: list[int], media_before: list[ReadMedium], prompt_ids: list[int], media: list[ReadMedium]) -> int:
    """Tokens of a prompt that a cache held before: those of a medium only if all of it was the same."""
    pairs = zip(before, prompt_ids[:-1], strict=False)
    shared = next((n for n, (old, new) in enumerate(pairs) if old != new), min(len(before), len(prompt_ids) - 1))
    for read in media:
        if read.start < shared and read not in media_before:
            return read.start
    return max(shared, 0)
