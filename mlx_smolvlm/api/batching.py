"""Many prompts -> their texts, several decoded at a time; a finished one makes room for the next."""

import errno
import os
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Event
from typing import Any

import mlx.core as mx
import numpy as np

from ..engine.feature_cache import FeatureCache
from ..engine.generation_options import GenerationOptions
from ..engine.prefill import read_inputs, tiles_per_step
from ..engine.rows import PreparedPrompt, Row, Rows
from ..engine.sampling import check_finite
from ..engine.structured import GrammarConstraint, make_constraint
from ..media.options import MediaOptions
from ..media.prefetch import Lookahead
from ..model.smolvlm import SmolVLM
from ..processor.processor import Processor

PREPARING_THREADS = min(4, os.cpu_count() or 1)  # prompts in work, each with its pictures at full size in memory
NO_PROMPTS_FAULT = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)  # it would be so for all that follow


@dataclass(frozen=True)
class BatchRequest:
    """One prompt of many.

    Attributes:
        messages_or_prompt, images, videos: as in `stream_generate`.
    """

    messages_or_prompt: str | Sequence[dict[str, Any]]
    images: Sequence[Any] = ()
    videos: Sequence[Any] = ()


@dataclass(frozen=True)
class BatchAnswer:
    """What came of one prompt.

    Attributes:
        index: which prompt, counted from 0.
        text: the answer, empty if there is an error.
        token_ids: the tokens of the answer, end token included.
        finish_reason: "stop" (an end token or stop string, or the form is complete) or "length"; None if there is an
            error.
        error: why there is no answer: what `stream_generate` would raise; None if there is one.
        prompt_tokens, image_tokens: tokens of the prompt, and those of them that stand for pictures and frames.
        seconds: from the first work of the model on this prompt to its last token. Prompts that are answered at the
            same time share them.
    """

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    error: Exception | None = None
    prompt_tokens: int = 0
    image_tokens: int = 0
    seconds: float = 0.0

    @property
    def completion_tokens(self) -> int:
        """Tokens of the answer, end token included."""
        return len(self.token_ids)


def generate_batch(
    model: SmolVLM,
    processor: Processor,
    requests: Iterable[BatchRequest],
    *,
    options: GenerationOptions | None = None,
    media_options: MediaOptions | None = None,
    batch_size: int = 32,
    max_cache_bytes: int = 2 * 1024**3,
    max_feature_bytes: int = 64 * 1024**2,
    prefill_chunk: int = 512,
    cancel: Event | None = None,
) -> Iterator[BatchAnswer]:
    """Answer prompts together.

    Every answer is the one that its prompt gets alone, with the same seed too. (Sums are added in another order, so
    where two tokens are likely to the last digit the choice may differ, as it may between two devices.) Prompts are
    taken from `requests` as room is made, and their media prepared in threads while the model works: memory does not
    depend on how many there are.

    Args:
        model, processor: from `load`.
        requests: the prompts; an iterator is read no further than needed.
        options: how all answers are made.
        media_options: how all pictures and videos are read.
        batch_size: most answers to make at a time.
        max_cache_bytes: most memory for keys and values; fewer answers are made at a time where it takes more.
        max_feature_bytes: most memory for image features of pictures that are shown again.
        prefill_chunk: most tokens of a prompt read at a time.
        cancel: when set, no more answers come, at the next token or chunk.

    Yields:
        An answer per prompt, in the order in which they are finished.

    Raises:
        ValueError: options out of range, or a form that no answer can keep to. A prompt that cannot be read, or after
            which the model computes values that are not finite, raises nothing: its answer has an `error`.
        OSError: prompts cannot be prepared for lack of disk space or open files.
    """
    bounds = {"batch_size": (batch_size, 1), "prefill_chunk": (prefill_chunk, 1)}
    bounds |= {"max_cache_bytes": (max_cache_bytes, 0), "max_feature_bytes": (max_feature_bytes, 0)}
    for name, (value, least) in bounds.items():
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is {value!r}, expected a whole number of at least {least}")
    batch = _Batch(
        model,
        processor,
        options or GenerationOptions(),
        media_options or MediaOptions(),
        batch_size,
        max_cache_bytes,
        max_feature_bytes,
        prefill_chunk,
        cancel,
    )
    batch.check()
    return batch.answers(requests)


class _Cancelled(Exception):
    """The cancel event was set between two units of work."""


class _Batch:
    """One call: prompts are prepared in threads, read as there is room, and answered together."""

    def __init__(
        self,
        model: SmolVLM,
        processor: Processor,
        options: GenerationOptions,
        media_options: MediaOptions,
        batch_size: int,
        max_cache_bytes: int,
        max_feature_bytes: int,
        prefill_chunk: int,
        cancel: Event | None,
    ):
        self._model = model
        self._processor = processor
        self._options = options
        self._media_options = media_options
        self._feature_cache = FeatureCache(max_feature_bytes)
        self._prefill_chunk = prefill_chunk
        self._cancel = cancel
        self._closing = Event()
        self._rows: Rows  # from the first `next()` on, see `answers`
        self._make_rows = partial(Rows, model, processor, options, batch_size, max_cache_bytes)
        self._tiles_per_step = tiles_per_step(model)
        self._waiting: PreparedPrompt | None = None  # for room
        self._is_exhausted = False

    def check(self) -> None:
        """Raise ValueError if no answer can keep to the form, rather than for each prompt."""
        self._constraint(self._options.max_tokens)

    def answers(self, requests: Iterable[BatchRequest]) -> Iterator[BatchAnswer]:
        """See `generate_batch`."""
        self._rows = self._make_rows()  # here, since arrays belong to the thread that makes them
        try:
            with Lookahead(self._prepare, enumerate(requests), PREPARING_THREADS) as prepared:
                try:
                    while True:
                        yield from self._admit(prepared)
                        if not self._rows:
                            return
                        yield from map(_answer, self._rows.step())
                        self._check_cancelled()
                finally:
                    self._closing.set()  # for the threads, which are waited for
        except _Cancelled:
            return

    def _constraint(self, budget: int) -> GrammarConstraint | None:
        """The form of an answer of at most `budget` tokens. Raises ValueError if it does not fit."""
        options, vocab_size = self._options, self._model.config.text.vocab_size
        return make_constraint(options.json_schema, options.regex, self._processor, vocab_size, budget)

    def _prepare(self, numbered: tuple[int, BatchRequest]) -> PreparedPrompt | BatchAnswer:
        """Make a prompt with all its pixels, or say why that cannot be done. Runs in a thread."""
        index, request = numbered
        try:
            if not isinstance(request, BatchRequest):
                raise TypeError(f"the request is {type(request).__name__}, expected a BatchRequest")
            with self._processor.prepare(
                request.messages_or_prompt,
                request.images,
                request.videos,
                options=self._media_options,
                check_cancelled=self._check_cancelled,
            ) as prompt:
                inputs = prompt.inputs()
            budget = min(self._options.max_tokens, self._processor.config.context_length - len(inputs.input_ids))
            return PreparedPrompt(index, inputs, budget, self._constraint(budget))
        except _Cancelled:
            raise
        except Exception as error:  # whatever it is, others can still be answered
            if isinstance(error, OSError) and error.errno in NO_PROMPTS_FAULT:
                raise
            return BatchAnswer(index, error=error)

    def _admit(self, prepared: Lookahead[Any, PreparedPrompt | BatchAnswer]) -> Iterator[BatchAnswer]:
        """Read prompts while there is room."""
        while group := (yield from self._next_group(prepared)):
            started = time.perf_counter()
            tiles = [tile for prompt in group for tile in _tiles(prompt)]
            features: list[mx.array] = []
            for start in range(0, len(tiles), self._tiles_per_step):
                self._check_cancelled()
                features += self._feature_cache.encode(self._model, tiles[start : start + self._tiles_per_step])
            del tiles  # the features stand for them from here on
            for number, prompt in enumerate(group):
                own, features = features[: len(_tiles(prompt))], features[len(_tiles(prompt)) :]
                group[number] = prompt = replace(prompt, inputs=replace(prompt.inputs, pixel_values=None))
                error = self._read(prompt, own, started)
                if error is not None:
                    yield BatchAnswer(prompt.index, error=error)
        self._rows.give_back_room(is_last=self._is_exhausted and self._waiting is None)

    def _next_group(
        self, prepared: Lookahead[Any, PreparedPrompt | BatchAnswer]
    ) -> Generator[BatchAnswer, None, list[PreparedPrompt]]:
        """Prompts for which there is room, as many as the encoder takes pictures at a time; none if there are none yet.

        They are waited for only if there is nothing else to do. Yields those that cannot be read.
        """
        group: list[PreparedPrompt] = []
        num_tiles = 0
        while True:
            self._check_cancelled()
            if self._waiting is None:
                if (self._rows or group) and not prepared.is_ready:
                    return group
                following = next(prepared, None)
                if following is None:
                    self._is_exhausted = True
                    return group
                if isinstance(following, BatchAnswer):
                    yield following
                    continue
                self._waiting = following
            num_tiles += len(_tiles(self._waiting))
            if (group and num_tiles > self._tiles_per_step) or not self._rows.make_room(self._waiting, group):
                return group
            group.append(self._waiting)
            self._waiting = None

    def _read(self, prompt: PreparedPrompt, features: list[mx.array], started: float) -> Exception | None:
        """Read a prompt into a row; returns why it cannot be answered, if so."""
        layers = self._model.make_cache()
        logits = read_inputs(self._model, prompt.inputs, features, layers, self._prefill_chunk, self._check_cancelled)
        try:
            check_finite(logits)
        except ValueError as error:  # a picture may do that in float16, where all others are fine
            return error
        self._rows.begin(prompt, layers, logits, started)
        return None

    def _check_cancelled(self) -> None:
        if self._closing.is_set() or (self._cancel is not None and self._cancel.is_set()):
            raise _Cancelled


def _tiles(prompt: PreparedPrompt) -> Sequence[np.ndarray]:
    """(tile_size, tile_size, 3) uint8 each."""
    return [] if prompt.inputs.pixel_values is None else list(prompt.inputs.pixel_values)


def _answer(row: Row) -> BatchAnswer:
    """What came of a prompt whose answer has ended."""
    inputs = row.prompt.inputs
    return BatchAnswer(
        index=row.prompt.index,
        text=row.text,
        token_ids=row.token_ids,
        finish_reason=row.finish_reason,
        prompt_tokens=len(inputs.input_ids),
        image_tokens=inputs.image_tokens,
        seconds=time.perf_counter() - row.started,
    )
