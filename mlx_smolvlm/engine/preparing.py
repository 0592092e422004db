"""Prepares the prompts of rows in threads: tokens known, images cut into tiles, videos opened."""

import errno
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from threading import Event

from ..processor.prompt_media import LoadedImage
from .answer import Answer, cancel_check
from .row import Prepared, Row, Stage

PREPARING_THREADS = min(4, os.cpu_count() or 1)  # prompts in flight, each with its images at full size in memory

SYSTEM_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)


class Preparer:
    """A few threads that open media and tokenize."""

    def __init__(self, makes_digests: bool, on_done: Callable[[], None]):
        """
        Args:
            makes_digests: whether it will be asked which media a prompt shares with others.
            on_done: called in a thread when a prompt is prepared.
        """
        self._makes_digests = makes_digests
        self._on_done = on_done
        self._closing = Event()
        self._pool = ThreadPoolExecutor(PREPARING_THREADS, thread_name_prefix="mlx_smolvlm worker")

    def begin(self, waiting: Sequence[Row], num_ahead: int, patience_s: float) -> None:
        """Begin with the first rows that wait, so that with those ahead there is one more than there are threads.

        They are waited for a moment: a short question takes milliseconds, and would else wait for a whole tile.
        """
        begun = waiting[: max(0, PREPARING_THREADS + 1 - num_ahead)]
        for row in begun:
            row.stage = Stage.PREPARING
            row.prepared = self._pool.submit(self._prepare, row)
            row.prepared.add_done_callback(lambda _: self._on_done())
        if begun and patience_s:
            wait([row.prepared for row in begun if row.prepared is not None], patience_s)

    def close(self) -> None:
        """Cancel what is begun, and wait for the threads."""
        self._closing.set()
        self._pool.shutdown(cancel_futures=True)

    def _prepare(self, row: Row) -> Prepared:
        check_cancelled = cancel_check(row.cancel, row.removed, self._closing)
        with ExitStack() as files:
            prompt = files.enter_context(
                row.processor.prepare(
                    row.request.messages_or_prompt,
                    row.request.images,
                    row.request.videos,
                    media_options=row.media_options,
                    apply_chat_template=row.options.apply_chat_template,
                    continue_final_message=row.options.continue_final_message,
                    check_cancelled=check_cancelled,
                )
            )
            for medium in prompt.media:
                check_cancelled()
                if isinstance(medium, LoadedImage):
                    medium.cut()
                elif self._makes_digests:
                    _ = medium.digest
            answer = Answer(row.model, row.processor, row.options, len(prompt.input_ids))
            return prompt, files.pop_all(), answer


def raise_system_fault(error: BaseException) -> None:
    """Raise an error that later prompts would meet, too, so that they are not tried."""
    if isinstance(error, OSError) and error.errno in SYSTEM_ERRNOS:
        raise error


def abandon(prepared: Future[Prepared]) -> None:
    """Release what was, or will be, prepared for a row that is gone."""

    def close(done: Future[Prepared]) -> None:
        if not done.cancelled() and done.exception() is None:
            _, files, _ = done.result()
            files.close()

    prepared.cancel()
    prepared.add_done_callback(close)
