"""The pages of documents -> what a model reads on them, several pages at a time."""

from collections.abc import Generator, Hashable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any, Unpack

from ..engine.answer import cancel_check, check_pair
from ..engine.row import BatchRequest, RowEvent, check_row_options
from ..engine.rows import Rows
from ..media.prefetch import Prefetched
from ..model.smolvlm import SmolVLM
from ..options import GenerationOptions, MediaOptions, OptionKeywords, is_whole, quoted, refuse_options, resolve_options
from ..processor.processor import Processor
from .loop_guard import LoopGuard
from .page_file import DEFAULT_SCALE
from .page_files import PageSource
from .page_ranges import page_ranges
from .page_reading import PageReading, PageToRead, pages_of
from .tasks import PageTask

MAX_PAGE_TOKENS = 8192
PAGES_AT_A_TIME = 4
END_OF_PAGE = "</doctag>"
_AHEAD = 2  # pages that are rendered while the model reads earlier ones
_UNREAD = 2  # pages whose tiles are prepared
_FEATURE_BYTES = 64 * 1024**2  # blank tiles of a page are alike


def read_document(
    model: SmolVLM,
    processor: Processor,
    sources: PageSource | Sequence[PageSource],
    *,
    task: str = "page",
    region: Sequence[int] | None = None,
    prompt: str | None = None,
    pages: str | Sequence[int] | None = None,
    password: str | None = None,
    scale: float = DEFAULT_SCALE,
    batch_size: int = PAGES_AT_A_TIME,
    options: GenerationOptions | None = None,
    media_options: MediaOptions | None = None,
    cancel: Event | None = None,
    **keywords: Unpack[OptionKeywords],
) -> Iterator[PageReading]:
    """Read the pages of documents with a model made for them, such as granite-docling or SmolDocling.

    Several pages are read together; each gives what it gives alone. Pages are rendered as they are needed, so memory
    does not depend on how many there are. A page or document that cannot be read loses none of the others.

    Args:
        model, processor: from `load`.
        sources: a PDF, image or TIFF of several pages, or a list of them: path, address, bytes, open file, PIL image
            or array, each; or a folder of such files.
        task: what to ask: "page" (all of it), "table", "chart", "formula", "code", "ocr", "identify", "headers" or
            "footers".
        region: left, top, right, bottom, 0 to 500 each, for the tasks that take one (see `PageTask`).
        prompt: what to ask in place of a task; with a region, the model sees this part alone.
        pages: which pages of each document, counted from 1: "3-7,10", "5-" or [3, 10]; None for all. A document
            without one of them is not read.
        password: opens encrypted PDFs.
        scale: pixels per point at which PDF pages are rendered; 2 are 144 dpi, as docling does.
        batch_size: most pages to read at a time.
        options, media_options, keywords: as in `stream_generate`. `max_tokens` is 8192 where neither `options` nor the
            keyword is given. What a page's answer must have is fixed: special tokens are kept, and it ends with
            `</doctag>`.
        cancel: when set, no more pages come.

    Yields:
        A reading per page, in the order of the pages, as soon as it and those before it are done.

    Raises:
        ValueError, TypeError: options out of range, unknown, or with no place here.
        OSError: prompts cannot be prepared for lack of disk space or open files.
    """
    if isinstance(sources, Sequence) and not isinstance(sources, str | bytes | bytearray | memoryview):
        listed: list[Any] = list(sources)
    else:
        listed = [sources]
    page_task = PageTask(task, None if region is None else tuple(region), prompt)  # type: ignore[arg-type]  # it checks
    ranges = None if pages is None else page_ranges(pages)
    if password is not None and not isinstance(password, str):
        raise TypeError(f"password is of type {type(password).__name__}, expected a string")
    if options is None and "max_tokens" not in keywords:
        keywords["max_tokens"] = MAX_PAGE_TOKENS
    if keywords.get("skip_special_tokens"):
        raise ValueError("skip_special_tokens is True, but a page's layout is made of special tokens; leave it out")
    options, media_options = resolve_options(options, media_options, keywords)
    check_reading(model, processor, options, media_options, batch_size)
    cancel_check(cancel)  # refuses what is no event
    return _in_order(
        read_pages(
            model,
            processor,
            pages_of(listed, scale, media_options, ranges, password),
            page_task,
            options=options,
            media_options=media_options,
            batch_size=batch_size,
            cancel=cancel,
        )
    )


def check_reading(
    model: SmolVLM, processor: Processor, options: GenerationOptions, media_options: MediaOptions, batch_size: int
) -> None:
    """Raise ValueError for options that have no place where pages are read, TypeError for no model with processor."""
    check_pair(model, processor)
    if not is_whole(batch_size, 1):
        raise ValueError(f"batch_size is {quoted(batch_size)}, expected a whole number of at least 1")
    reason = "a page is asked for by its task, and ends where the model ends it"
    refuse_options(options, ("stop", "json_schema", "regex", "continue_final_message", "apply_chat_template"), reason)
    refuse_options(options, ("logprobs",), "readings have no place for them")
    refuse_options(media_options, ("page",), "all pages are read")
    refuse_options(media_options, ("fps", "max_frames", "start_s", "end_s", "hardware_decoding"), "there is no video")
    check_row_options(model, options)


def read_pages(
    model: SmolVLM,
    processor: Processor,
    pages: Generator[PageToRead, None, None],
    task: PageTask,
    *,
    options: GenerationOptions,
    media_options: MediaOptions,
    batch_size: int = PAGES_AT_A_TIME,
    cancel: Event | None = None,
) -> Iterator[tuple[int, PageReading]]:
    """Read pages together.

    Yields:
        (index, reading): which page, counted from 0, and what came of it, in the order in which they are done.
    """
    options = replace(options, stop=(END_OF_PAGE,), skip_special_tokens=False)
    ends = {token_id: processor.decode([token_id], skip_special_tokens=False) for token_id in processor.stop_token_ids}
    answers: dict[Hashable, _Answering] = {}
    done: list[tuple[int, PageReading]] = []
    index = 0
    with (
        closing(Prefetched(pages, _AHEAD)) as ahead,
        Rows(
            model,
            processor,
            batch_size=batch_size,
            max_feature_bytes=_FEATURE_BYTES,
            max_prefix_bytes=0,
            max_pause_s=None,
            kv_bits=options.kv_bits,
            kv_group_size=options.kv_group_size,
            quantized_kv_start=options.quantized_kv_start,
        ) as rows,
    ):
        is_ended = False

        def refill() -> None:
            nonlocal index, is_ended
            while (
                not is_ended and rows.num_unread < _UNREAD and len(done) < batch_size and (not rows or ahead.num_ready)
            ):
                page = next(ahead, None)
                if page is None:
                    is_ended = True
                    return
                if page.image is None:
                    done.append((index, PageReading(page.source, page.number, error=page.error)))
                else:
                    images = [task.shown(page.image)]
                    answers[index] = _Answering(page.source, page.number, images[0].size)
                    request = BatchRequest(task.prompt, images)
                    # Once the model begins, it has the tiles, and no row holds a page that may be large.
                    rows.add(request, options, media_options, key=index, cancel=cancel, on_begin=images.clear)
                index += 1

        while not (cancel is not None and cancel.is_set()):
            refill()
            yield from done
            done.clear()
            if not rows:
                if is_ended:
                    return
                continue
            for event in rows.step():
                answering = answers[event.key]
                if answering.add(event):
                    rows.remove(event.key)
                if answering.is_done:
                    del answers[event.key]
                    if event.finish_reason != "cancelled":
                        assert isinstance(event.key, int)
                        yield event.key, answering.reading(event, ends)


@dataclass
class _Answering:
    """A page while it is read."""

    source: str
    number: int
    size: tuple[int, int]
    texts: list[str] = field(default_factory=list)
    guard: LoopGuard = field(default_factory=LoopGuard)
    is_loop: bool = False
    is_done: bool = False

    def add(self, event: RowEvent) -> bool:
        """A token; returns whether the row is to be removed, since the model goes in a loop."""
        self.texts.append(event.text)
        self.is_done = event.finish_reason is not None
        if not self.is_done and self.guard.add(event.text):
            self.is_loop = self.is_done = True
            return True
        return False

    def reading(self, event: RowEvent, ends: dict[int, str]) -> PageReading:
        """What came of it, with its last event; `ends` spells the tokens that end answers."""
        if event.error is not None:
            return PageReading(self.source, self.number, error=event.error, size=self.size)
        text, reason = "".join(self.texts), "loop" if self.is_loop else event.finish_reason
        if reason == "stop":
            if event.token_id in ends:
                text = text.removesuffix(ends[event.token_id])
            else:  # the stop string has come, which is no part of an answer's text, but of a page
                text += END_OF_PAGE
        return PageReading(
            self.source,
            self.number,
            text,
            reason,
            size=self.size,
            prompt_tokens=event.prompt_tokens,
            completion_tokens=event.completion_tokens,
            seconds=event.seconds,
        )


def _in_order(readings: Iterator[tuple[int, PageReading]]) -> Iterator[PageReading]:
    """Readings in the order of the pages."""
    waiting: dict[int, PageReading] = {}
    following = 0
    for index, reading in readings:
        waiting[index] = reading
        while following in waiting:
            yield waiting.pop(following)
            following += 1
