"""Many answers at once: prompts are read between the decode steps of answers in flight.

See `row.py` for what a row is; `row_reading.py` reads prompts, `row_decoding.py` makes tokens; here they take turns.
"""

import time
from collections.abc import Callable, Hashable
from itertools import count
from threading import Event
from typing import Unpack

from ..media.prefetch import as_exception
from ..model.forking import refuse_forked_process
from ..model.smolvlm import SmolVLM
from ..options import GenerationOptions, MediaOptions, OptionKeywords, quoted, resolve_options
from ..processor.processor import Processor
from .answer import AnswerStep, Cancelled, check_pair
from .exclusive import OneCallAtATime, exclusive
from .feature_cache import SharedFeatureCache
from .lanes import Lanes
from .pacing import MAX_PAUSE_S, Pace
from .prefixes import PrefixCache, released_layers
from .preparing import Preparer, abandon, raise_system_fault
from .prompt_progress import PromptProgress
from .row import BatchRequest, Row, RowEvent, Stage, check_bounds, check_row_options, with_cache_of
from .row_reading import MAX_READING, RowReading
from .sampling import check_finite

_POLL_S = 0.05  # how long `step` waits for a thread before it looks at the cancel events


class Rows(OneCallAtATime):
    """Answers that are made together, each the one that its prompt gets alone, with the same seed too.

    Add requests at any time, and call `step` as long as there are rows. Prompts are read in chunks between decode
    steps, so a long prompt delays other answers by at most `max_pause_s`. The prompt with the least left to read comes
    first; the longer one waits, the earlier it comes. Requests may choose adapters: another model on the same base, by
    `BatchRequest.pair`. One call at a time, from any thread, or a ValueError; close it when done, or use it in a `with`
    statement.

    Attributes:
        feature_cache: image features of what was shown.
        prefix_cache: keys and values of earlier prompts and answers.
    """

    def __init__(
        self,
        model: SmolVLM,
        processor: Processor,
        *,
        batch_size: int = 32,
        max_cache_bytes: int = 2 * 1024**3,
        max_feature_bytes: int = 256 * 1024**2,
        max_prefix_bytes: int = 512 * 1024**2,
        max_pause_s: float | None = MAX_PAUSE_S,
        kv_bits: int | None = None,
        kv_group_size: int = 64,
        quantized_kv_start: int = 0,
        refill: Callable[[], None] | None = None,
    ):
        """
        Args:
            model, processor: from `load`; they answer requests that bring none.
            batch_size: most answers to make at a time; further ones wait.
            max_cache_bytes: most memory for keys and values; fewer answers are made at a time where it takes more.
            max_feature_bytes: most memory for image features, for images that are shown again.
            max_prefix_bytes: most memory for keys and values of earlier prompts, for others that begin alike; 0: none.
            max_pause_s: most seconds that decoding waits for prompts to be read, or the time of two decode steps
                where that is longer; None reads prompts as soon as there is room for them, which is best if only the
                time for all counts.
            kv_bits, kv_group_size, quantized_kv_start: of the keys and values of all rows, see `GenerationOptions`.
            refill: called whenever requests may be added, within `step` too, to add some.

        Raises:
            ValueError, TypeError: a bound out of range; no model with its processor.
        """
        check_pair(model, processor)
        check_bounds(batch_size, max_cache_bytes, max_feature_bytes, max_prefix_bytes)
        self._cache_options = GenerationOptions(
            kv_bits=kv_bits, kv_group_size=kv_group_size, quantized_kv_start=quantized_kv_start
        )
        check_row_options(model, self._cache_options)
        self._pace = Pace(max_pause_s)
        super().__init__("the rows are in use by another call, in another thread; make one call at a time")
        self._pair = model, processor
        self._refill = refill
        self.feature_cache = SharedFeatureCache(max_feature_bytes)
        self.prefix_cache = PrefixCache(max_prefix_bytes, quantized_kv_start)
        self._changed = Event()  # set by threads that have something ready
        self._preparer = Preparer(max_prefix_bytes > 0, self._changed.set)
        self._reading = RowReading(self.feature_cache, self.prefix_cache, self._pace, self._changed.set, self._fail)
        self._decoder = Lanes(batch_size, max_cache_bytes, self._cache_options)
        self._rows: dict[Hashable, Row] = {}  # all of them, in the order in which they were added
        self._events: list[RowEvent] = []  # of the step that is being made
        self._numbers = count()

    def __len__(self) -> int:
        """Rows in any stage."""
        return len(self._rows)

    @property
    def num_unread(self) -> int:
        """Rows that wait for their prompts to be read."""
        return len(self._at(Stage.WAITING, Stage.PREPARING, Stage.PREPARED))

    @exclusive
    def add(
        self,
        request: BatchRequest,
        options: GenerationOptions | None = None,
        media_options: MediaOptions | None = None,
        *,
        key: Hashable = None,
        cancel: Event | None = None,
        on_begin: Callable[[], None] | None = None,
        on_progress: Callable[[PromptProgress], None] | None = None,
        **keywords: Unpack[OptionKeywords],
    ) -> Hashable:
        """Add a request. Its options are checked at once; its prompt and media are read later.

        Args:
            request: the prompt. Options and a model of its own take the place of those of all; keywords win.
            options, media_options, keywords: as in `stream_generate`.
            key: names the row in events; None for a number.
            cancel: when set, the row ends with "cancelled" at the next step.
            on_begin: called within `step` when the prompt is prepared and the model begins with it.
            on_progress: called within `step` with how much of the prompt has been read, from then on.

        Returns:
            The key.

        Raises:
            ValueError, TypeError: options out of range, unknown or not supported by `Rows`; a key in use.
        """
        if not isinstance(request, BatchRequest):
            raise TypeError(f"the request is {type(request).__name__}, expected a BatchRequest")
        options, media_options = resolve_options(
            request.options or options, request.media_options or media_options, keywords
        )
        options = with_cache_of(self._cache_options, options)
        pair = request.pair or self._pair
        check_row_options(pair[0], options)
        key = next(number for number in self._numbers if number not in self._rows) if key is None else key
        if key in self._rows:
            raise ValueError(f"there is a row {quoted(key)} already; remove it first, or choose another key")
        self._rows[key] = Row(key, request, options, media_options, *pair, cancel, on_begin, on_progress)
        return key

    @exclusive
    def remove(self, key: Hashable) -> None:
        """Drop a row in any stage; there is no event for it. Raises ValueError if there is no such row."""
        if key not in self._rows:
            raise ValueError(f"there is no row {quoted(key)}")
        self._drop(self._rows[key])

    @exclusive
    def close(self) -> None:
        """Drop all rows and end the threads."""
        for row in list(self._rows.values()):
            self._drop(row)
        self._preparer.close()

    @exclusive
    def step(self) -> list[RowEvent]:
        """Read some of the prompts that wait, and make a token of every answer whose prompt has been read.

        Returns:
            An event for each row that was decoded, has failed or was cancelled; none while prompts are being prepared.

        Raises:
            OSError, RuntimeError: no disk space or open files to prepare prompts with; a forked process.
        """
        refuse_forked_process()
        self._changed.clear()
        self._events = []
        self._drop_cancelled()
        # Not after a step: the tokens would wait for the step after it, which is enqueued.
        self._decoder.release_room(is_last=len(self._decoder) == len(self._rows))
        has_read = self._read()
        if self._decoder:
            with self._pace.step(self._decoder.num_lanes):
                steps = self._decoder.step()
            for key, step in steps:
                self._note(self._rows[key], step)
        elif self._rows and not has_read and not self._events:
            self._changed.wait(_POLL_S)
        return self._events

    def wake(self) -> None:
        """Let a `step` that waits for prompts to be prepared return at once. From any thread, at any time."""
        self._changed.set()

    @property
    def usage(self) -> tuple[int, float]:
        """Bytes of keys and values, were all rows to become as long as they may; seconds spent on encoding so far."""
        return self._decoder.num_bytes, self._reading.encode_s

    def _drop_cancelled(self) -> None:
        for row in [row for row in self._rows.values() if row.is_cancelled]:
            text = "" if row.answer is None else row.answer.flush()
            self._events.append(row.event(text=text, finish_reason="cancelled"))
            self._drop(row)

    def _at(self, *stages: Stage) -> list[Row]:
        return [row for row in self._rows.values() if row.stage in stages]

    def _drop(self, row: Row) -> None:
        row.removed.set()
        if row.stage is Stage.DECODING:
            self._decoder.free(row)
        if row.prepared is not None and row.stage is Stage.PREPARING:
            abandon(row.prepared)
        row.close()
        del self._rows[row.key]

    def _fail(self, row: Row, error: Exception) -> None:
        if isinstance(error, Cancelled):
            self._events.append(row.event(finish_reason="cancelled"))
        else:
            self._events.append(row.event(finish_reason="error", error=error))
        self._drop(row)

    def _take_prepared(self, row: Row) -> None:
        assert row.prepared is not None
        error = row.prepared.exception()  # whatever it is, others can still be answered
        if error is not None:
            raise_system_fault(error)
            self._fail(row, as_exception(error))
            return
        row.prompt, row.files, row.answer = row.prepared.result()
        row.prepared = None  # which would hold the images, too
        row.stage = Stage.PREPARED
        row.note_prompt()

    def _read(self) -> bool:
        """Read prompts for as long as decoding may wait; returns whether there was anything to do."""
        if self._decoder and self._at(Stage.PREPARED, Stage.READING):
            self._decoder.settle()  # else the time of the step would count as reading
        start, has_read = time.perf_counter(), False
        while True:
            if has_read:
                self._drop_cancelled()  # nobody may be decoding, and then all prompts are read within one call
            self._admit()
            left = self._pace.pause_s - (time.perf_counter() - start) if self._decoder else float("inf")
            if has_read and self._pace.is_used_up(left):
                return True
            readers = sorted(self._at(Stage.READING), key=self._reading.urgency)
            done = next((row for row in readers if row.is_read), None)
            if done is not None:  # it takes a unit's time where the prompt is long
                self._begin(done)
            elif not self._reading.unit(readers, left if self._decoder else self._pace.unit_s):
                return has_read
            has_read = True

    def _admit(self) -> None:
        """Begin to read prepared prompts for which there is room, the least work first."""
        if self._refill is not None:
            self._refill()
        self._preparer.begin(self._at(Stage.WAITING), len(self._at(Stage.PREPARING, Stage.PREPARED)))
        for row in self._at(Stage.PREPARING):
            if row.prepared is not None and row.prepared.done():
                self._take_prepared(row)
        reading = self._at(Stage.READING)
        for row in sorted(self._at(Stage.PREPARED), key=self._reading.urgency):
            if len(reading) >= MAX_READING or not self._decoder.fits([row, *reading]):
                return
            self._reading.begin(row)
            reading.append(row)

    # Decoding

    def _begin(self, row: Row) -> None:
        """Begin to answer a prompt that has been read."""
        assert row.reader is not None and row.answer is not None
        row.note_prompt()  # which may have changed, where a video broke off
        logits, cache = row.reader.logits(), row.cache
        try:
            check_finite(logits)
        except ValueError as error:  # an image may do that in float16, where all others are fine
            self._fail(row, error)
            return
        if self.prefix_cache.max_bytes:
            row.media, length = cache.media, len(cache.token_ids)
            self.prefix_cache.keep(row.model, cache.token_ids, cache.media, released_layers(cache.layers, length))
        self._decoder.begin(row, cache.layers, logits)
        row.stage = Stage.DECODING
        row.close()

    def _note(self, row: Row, step: AnswerStep) -> None:
        """Report a token; keep what a row has read when it ends."""
        self._events.append(row.event(step))
        if step.finish_reason is None:
            return
        if self.prefix_cache.max_bytes and row.answer is not None:
            read = [*row.prompt_ids, *row.answer.token_ids[:-1]]
            self.prefix_cache.keep(row.model, read, row.media, self._decoder.held_layers(row, len(read)))
        self._drop(row)
