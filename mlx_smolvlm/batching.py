"""Many prompts -> their texts, several decoded at a time; a finished one makes room for the next."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import mlx.core as mx

from .caches.batch import BatchCache
from .engine.decoding import logits_after
from .engine.feature_cache import FeatureCache
from .engine.prefill import read_inputs
from .engine.structured import GrammarConstraint, make_constraint
from .engine.text_stream import TextStream
from .generation_options import GenerationOptions
from .media.options import MediaOptions
from .model import SmolVLM
from .prefetch import Lookahead
from .processing import Processor
from .prompting.prompt import Inputs
from .sampling import Sampler, check_finite, make_sampler

PREPARING_THREADS = min(4, os.cpu_count() or 1)  # prompts in work, each with its pictures at full size in memory


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
        error: why the prompt could not be read: what `stream_generate` would raise; None if it was answered.
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
        ValueError: options out of range, or a model that computes values that are not finite. A prompt that cannot be
            read raises nothing: its answer has an `error`.
    """
    for name, value in (("batch_size", batch_size), ("prefill_chunk", prefill_chunk)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}, expected a whole number of at least 1")
    options = options or GenerationOptions()
    batch = _Batch(
        model,
        processor,
        options,
        media_options or MediaOptions(),
        batch_size,
        max_cache_bytes,
        FeatureCache(max_feature_bytes),
        prefill_chunk,
        cancel,
    )
    batch.constraint(options.max_tokens)  # what fits no answer is said once, and at once
    return batch.answers(requests)


@dataclass(frozen=True)
class _Prepared:
    """A prompt with all its pixels, and the form that its answer keeps to."""

    index: int
    inputs: Inputs
    budget: int  # most tokens of the answer
    constraint: GrammarConstraint | None


@dataclass
class _Row:
    """A prompt that is being answered."""

    prepared: _Prepared
    started: float
    sample: Sampler
    text_stream: TextStream
    text: str = ""
    token_ids: list[int] = field(default_factory=list)

    def take(self, token_id: int, stop_token_ids: frozenset[int]) -> str | None:
        """Note a token; returns why the answer ends with it, if it does."""
        constraint = self.prepared.constraint
        self.token_ids.append(token_id)
        self.text += self.text_stream.add(token_id)
        if token_id in stop_token_ids or self.text_stream.stopped:
            return "stop"
        if constraint is not None and constraint.is_complete:
            return "length" if constraint.is_cut else "stop"
        return "length" if len(self.token_ids) == self.prepared.budget else None

    def answer(self, finish_reason: str) -> BatchAnswer:
        """What came of it."""
        inputs = self.prepared.inputs
        return BatchAnswer(
            self.prepared.index,
            self.text + self.text_stream.flush(),
            self.token_ids,
            finish_reason,
            None,
            len(inputs.input_ids),
            inputs.image_tokens,
            time.perf_counter() - self.started,
        )


class _Cancelled(Exception):
    """The cancel event was set between two units of work."""


class _Batch:
    """The rows of one call, and what they share."""

    def __init__(
        self,
        model: SmolVLM,
        processor: Processor,
        options: GenerationOptions,
        media_options: MediaOptions,
        batch_size: int,
        max_cache_bytes: int,
        feature_cache: FeatureCache,
        prefill_chunk: int,
        cancel: Event | None,
    ):
        self._model = model
        self._processor = processor
        self._options = options
        self._media_options = media_options
        self._batch_size = batch_size
        self._max_cache_bytes = max_cache_bytes
        self._feature_cache = feature_cache
        self._prefill_chunk = prefill_chunk
        self._cancel = cancel
        self._cache = BatchCache(model.config.text, model.language_model.norm.weight.itemsize)
        self._rows: dict[int, _Row] = {}  # by their row of the cache
        self._logits = mx.zeros((0, model.config.text.vocab_size))  # after what each row holds
        self._next: _Prepared | BatchAnswer | None = None  # for which there is no room yet

    def answers(self, requests: Iterable[BatchRequest]) -> Iterator[BatchAnswer]:
        """See `generate_batch`."""
        try:
            with Lookahead(self._prepare, enumerate(requests), PREPARING_THREADS) as prepared:
                while True:
                    yield from self._admit(prepared)
                    if not self._rows:
                        return
                    yield from self._step()
        except _Cancelled:
            return

    def constraint(self, budget: int) -> GrammarConstraint | None:
        """The form of an answer of at most `budget` tokens. Raises ValueError if it does not fit."""
        options, vocab_size = self._options, self._model.config.text.vocab_size
        return make_constraint(options.json_schema, options.regex, self._processor, vocab_size, budget)

    def _prepare(self, numbered: tuple[int, BatchRequest]) -> _Prepared | BatchAnswer:
        """Make a prompt with all its pixels, or say why that cannot be done. Runs in a thread."""
        index, request = numbered
        try:
            with self._processor.prepare(
                request.messages_or_prompt,
                request.images,
                request.videos,
                options=self._media_options,
                check_cancelled=self._check_cancelled,
            ) as prompt:
                inputs = prompt.inputs()
            budget = min(self._options.max_tokens, self._processor.config.context_length - len(inputs.input_ids))
            return _Prepared(index, inputs, budget, self.constraint(budget))
        except (ValueError, TypeError, OSError, MemoryError) as error:
            return BatchAnswer(index, error=error)

    def _admit(self, prepared: Lookahead[Any, _Prepared | BatchAnswer]) -> Iterator[BatchAnswer]:
        """Read prompts while there is room; wait for them only if there is nothing else to do."""
        while True:
            self._check_cancelled()
            if self._next is None:
                if self._rows and not prepared.is_ready:
                    break
                self._next = next(prepared, None)
            if self._next is None:
                break
            if isinstance(self._next, BatchAnswer):
                yield self._next
            elif self._make_room(self._next):
                self._begin(self._next)
            else:
                break
            self._next = None
        if 2 * len(self._rows) <= self._cache.num_rows:  # the end is near: empty rows cost as much as others
            self._arrange(len(self._rows))

    def _make_room(self, prepared: _Prepared) -> bool:
        """Have an empty row, if one more keeps within the bounds though all became as long as the longest may."""
        longest = max(
            len(one.inputs.input_ids) + one.budget
            for one in [prepared, *(row.prepared for row in self._rows.values())]
        )
        most = max(1, min(self._batch_size, self._max_cache_bytes // self._cache.bytes_per_row(longest)))
        needed = len(self._rows) + 1
        if needed > most:
            return False
        if not needed <= self._cache.num_rows <= most:
            self._arrange(min(2 * needed, most))
        return True

    def _arrange(self, num_rows: int) -> None:
        """Let the cache have so many rows, those in use first."""
        used = sorted(self._rows)
        self._cache.arrange(used, num_rows)
        empty = mx.zeros((num_rows - len(used), self._logits.shape[1]), self._logits.dtype)
        self._logits = mx.concatenate([self._logits[mx.array(used, mx.int32)], empty])
        self._rows = {number: self._rows[row] for number, row in enumerate(used)}

    def _begin(self, prepared: _Prepared) -> None:
        """Read a prompt into an empty row."""
        started = time.perf_counter()
        layers = self._model.make_cache()
        logits = read_inputs(
            self._model, prepared.inputs, layers, self._feature_cache, self._prefill_chunk, self._check_cancelled
        )
        check_finite(logits)
        number = next(number for number in range(self._cache.num_rows) if number not in self._rows)
        self._cache.put(number, layers)
        self._logits[number] = logits[0]
        self._rows[number] = _Row(
            prepared,
            started,
            make_sampler(self._options.sampling, prepared.inputs.input_ids, logits.shape[1]),
            TextStream(self._processor, list(self._options.stop), self._options.skip_special_tokens),
        )

    def _step(self) -> Iterator[BatchAnswer]:
        """Choose a token for each row, and read them."""
        chosen = self._chosen()
        mx.async_eval(chosen)
        self._cache.begin_step()
        following = logits_after(self._model, chosen[None], self._cache.layers)[0]  # built while the device works
        token_ids: list[int] = chosen.tolist()  # type: ignore[assignment]
        taken = list(token_ids)
        for number, row in self._rows.items():
            if row.prepared.constraint is not None:
                taken[number] = row.prepared.constraint.take(token_ids[number])
        if taken != token_ids:  # the step would be for nothing
            following = logits_after(self._model, mx.array([taken]), self._cache.layers)[0]
        answers = []
        for number, row in list(self._rows.items()):
            reason = row.take(taken[number], self._processor.stop_token_ids)
            if reason is not None:
                answers.append(row.answer(reason))
                del self._rows[number]
        if self._rows:
            mx.async_eval(following)  # only now, see `engine/decoding.py`
        self._logits = following
        self._cache.end_step(sorted(self._rows))
        yield from answers

    def _chosen(self) -> mx.array:
        """The next token of each row, (num_rows,); any for those that are empty."""
        is_free = self._options.json_schema is None and self._options.regex is None
        if is_free and self._options.sampling.is_greedy:
            return mx.argmax(self._logits, axis=-1)
        chosen = [mx.zeros(1, mx.uint32)] * self._cache.num_rows
        for number, row in self._rows.items():
            constraint = row.prepared.constraint
            allowed = None if constraint is None else constraint.allowed()
            chosen[number] = row.sample(self._logits[number : number + 1], allowed)
        return mx.concatenate(chosen)

    def _check_cancelled(self) -> None:
        if self._cancel is not None and self._cancel.is_set():
            raise _Cancelled
