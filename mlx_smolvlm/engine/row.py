"""One of many requests: what is asked, its stage, and what its steps report."""

import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from threading import Event
from typing import Any

from ..media.images import ImageSource
from ..model.forking import refuse_forked_process
from ..model.smolvlm import SmolVLM
from ..options import GenerationOptions, MediaOptions, is_whole, quoted, refuse_options, resolve_options
from ..processor.messages import Message, Several, check_media
from ..processor.processor import Processor
from ..processor.prompt import Prompt
from ..processor.sampled_video import VideoSource
from .answer import Answer, AnswerStep, cancel_check, check_options, check_pair
from .prefill import PromptReader
from .prompt_cache import PromptCache, ReadMedium
from .prompt_progress import PromptProgress


@dataclass(frozen=True)
class BatchRequest:
    """One prompt of many.

    Attributes:
        messages_or_prompt, images, videos: as in `stream_generate`.
        options, media_options: how this answer is made and its media are read; None for those of all.
        pair: the model and processor that answer, such as `AdapterSet.pair(name)`; None for those of all.

    Raises:
        ValueError: images or videos that are no list.
        TypeError: options of another type, or no model with its processor.
    """

    messages_or_prompt: str | Sequence[Message]
    images: Several[ImageSource] = ()
    videos: Several[VideoSource] = ()
    options: GenerationOptions | None = None
    media_options: MediaOptions | None = None
    pair: tuple[SmolVLM, Processor] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_media("images", self.images)
        check_media("videos", self.videos)
        resolve_options(self.options, self.media_options, {})
        if self.pair is not None:
            if not (isinstance(self.pair, tuple) and len(self.pair) == 2):
                raise TypeError(f"pair is {quoted(self.pair)}, expected (model, processor), as load() returns them")
            check_pair(*self.pair)


@dataclass(frozen=True)
class RowEvent:
    """The result of one step for one row.

    Attributes:
        key: which row.
        text: what it adds to the answer; empty while a character or a stop string is incomplete.
        token_id: the token; None if the row ended without one.
        finish_reason: None while going on; then "stop", "length", "cancelled" or "error", and the row is gone.
        error: why there is no answer: what `stream_generate` would raise; None if there is one.
        logprob, top_logprobs: as in `AnswerStep`.
        prompt_ids: tokens of the prompt.
        prompt_tokens, image_tokens: how many these are, and how many of them stand for images and frames.
        cached_tokens: tokens of the prompt that were copied from an earlier prompt instead of being read.
        completion_tokens: tokens of the answer so far, end token included.
        seconds: since the model began with the prompt. Rows that are made together share them.
    """

    key: Hashable
    text: str = ""
    token_id: int | None = None
    finish_reason: str | None = None
    error: Exception | None = None
    logprob: float | None = None
    top_logprobs: list[tuple[int, float]] | None = None
    prompt_ids: Sequence[int] = ()
    prompt_tokens: int = 0
    image_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


class Stage(Enum):
    """The stage of a row."""

    WAITING = auto()
    PREPARING = auto()  # a thread opens its media and tokenizes
    PREPARED = auto()
    READING = auto()  # the model reads its prompt
    DECODING = auto()


Prepared = tuple[Prompt, ExitStack, Answer]


@dataclass
class Row:
    """A request in flight.

    Attributes:
        key, request, options, media_options, cancel, on_begin, on_progress: as given.
        model, processor: what answers.
        added_s, started_s: when it was added and when reading began, as `time.perf_counter` has it.
        removed: set when nobody waits for it any more.
        stage: its stage; the attributes below are set from the stage on that is named.
        prepared: PREPARING.
        prompt, files, answer: PREPARED; prompt and files until DECODING.
        cache, reader: READING; until DECODING.
        media: DECODING, if prefixes are kept.
        prompt_ids, image_tokens, cached_tokens: what its prompt costs.
    """

    key: Hashable
    request: BatchRequest
    options: GenerationOptions
    media_options: MediaOptions
    model: SmolVLM
    processor: Processor
    cancel: Event | None
    on_begin: Callable[[], None] | None = None
    on_progress: Callable[[PromptProgress], None] | None = None
    added_s: float = field(default_factory=time.perf_counter)
    started_s: float = 0.0
    removed: Event = field(default_factory=Event)
    stage: Stage = Stage.WAITING
    prepared: Future[Prepared] | None = None
    prompt: Prompt | None = None
    files: ExitStack = field(default_factory=ExitStack)
    answer: Answer | None = None
    cache: PromptCache = field(default_factory=PromptCache)
    reader: PromptReader | None = None
    media: list[ReadMedium] = field(default_factory=list)
    prompt_ids: list[int] = field(default_factory=list)
    image_tokens: int = 0
    cached_tokens: int = 0

    def __post_init__(self) -> None:
        refuse_forked_process()
        cancel_check(self.cancel)  # refuses what is no event

    @property
    def most_tokens(self) -> int:
        """Most tokens that it may have, prompt included."""
        assert self.answer is not None
        return len(self.prompt_ids) + self.answer.budget

    @property
    def is_cancelled(self) -> bool:
        """Whether its event is set."""
        return self.cancel is not None and self.cancel.is_set()

    @property
    def is_read(self) -> bool:
        """Whether all of its prompt has been read."""
        return self.reader is not None and not self.reader.has_tiles and not self.reader.tokens_left

    def note_prompt(self) -> None:
        """Note the tokens of the prompt."""
        assert self.prompt is not None
        self.prompt_ids = self.prompt.input_ids
        self.image_tokens = sum(medium.image_tokens for medium in self.prompt.costs)

    def tell_progress(self) -> None:
        """Tell how much of the prompt has been read."""
        if self.on_progress is not None and self.reader is not None:
            done, left = self.reader.done, self.reader.tokens_left
            seconds = time.perf_counter() - self.started_s
            self.on_progress(PromptProgress(done + left, self.cached_tokens, done, seconds))

    def close(self) -> None:
        """Release media, files and the thread that makes tiles."""
        if self.reader is not None:
            self.reader.close()
        self.reader = self.prompt = None
        self.cache = PromptCache()
        self.files.close()

    def event(self, step: AnswerStep | None = None, **values: Any) -> RowEvent:
        """An event of this row."""
        if step is not None:
            values |= {"text": step.text, "token_id": step.token_id, "finish_reason": step.finish_reason}
            values |= {"logprob": step.logprob, "top_logprobs": step.top_logprobs}
        return RowEvent(
            self.key,
            **values,
            prompt_ids=self.prompt_ids,
            prompt_tokens=len(self.prompt_ids),
            image_tokens=self.image_tokens,
            cached_tokens=self.cached_tokens,
            completion_tokens=0 if self.answer is None else len(self.answer.token_ids),
            seconds=time.perf_counter() - self.started_s if self.started_s else 0.0,
        )


def check_bounds(batch_size: int, max_cache_bytes: int, max_feature_bytes: int, max_prefix_bytes: int) -> None:
    """Raise ValueError for bounds that `Rows` would refuse."""
    bounds = [("batch_size", batch_size, 1), ("max_cache_bytes", max_cache_bytes, 0)]
    bounds += [("max_feature_bytes", max_feature_bytes, 0), ("max_prefix_bytes", max_prefix_bytes, 0)]
    for name, value, least in bounds:
        if not is_whole(value, least):
            raise ValueError(f"{name} is {quoted(value)}, expected a whole number of at least {least}")


def check_row_options(model: SmolVLM, options: GenerationOptions) -> None:
    """Raise what `refuse_single_options` and `check_options` raise."""
    refuse_single_options(options)
    check_options(model, options)


def refuse_single_options(options: GenerationOptions) -> None:
    """Raise ValueError for options that only one answer at a time can have."""
    reason = "answers that are made together take one token each in a step"
    refuse_options(options, ("prompt_lookup_tokens",), reason)
    reason = "answers that are made together have key-value caches that do not rotate, which max_cache_bytes bounds"
    refuse_options(options, ("max_kv_size",), reason)


def with_cache_of(shared: GenerationOptions, options: GenerationOptions) -> GenerationOptions:
    """Options with the key-value cache that all rows have.

    Raises:
        ValueError: they ask for another one.
    """
    if options.cache_options == shared.cache_options:
        return options
    for name in ("kv_bits", "kv_group_size", "quantized_kv_start"):
        value, own = getattr(options, name), getattr(shared, name)
        if value not in (own, getattr(GenerationOptions(), name)):
            raise ValueError(
                f"{name} is {quoted(value)}, but these rows were made with {name}={own}; it is the same for all rows"
            )
    return replace(
        options,
        kv_bits=shared.kv_bits,
        kv_group_size=shared.kv_group_size,
        quantized_kv_start=shared.quantized_kv_start,
    )
