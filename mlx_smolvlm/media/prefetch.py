"""Work ahead, and side by side, in threads."""

import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")
_POLL_S = 0.05  # how long a finished consumer waits for a thread that waits for room


def as_exception(error: BaseException) -> Exception:
    """What a thread raised, to be raised or reported elsewhere: a SystemExit in it is not meant to end the process."""
    if isinstance(error, Exception):
        return error
    what = " ".join(f"{type(error).__name__} {error}".split())
    told = RuntimeError(f"a thread ended with {what}")
    told.__cause__ = error
    return told


class Prefetched(Iterator[T]):
    """Runs an iterator in a thread of its own, at most `depth` items ahead of the consumer.

    Errors arrive where the item would have. The thread starts when the object is first asked for something: an
    interruption then finds it, and can close it. Close it when done.
    """

    def __init__(self, items: Iterator[T], depth: int, on_ready: Callable[[], None] | None = None):
        """
        Args:
            items: closed by the thread, if it can be.
            depth: items that may wait.
            on_ready: called in the thread after each item, the end or an error has become ready.
        """
        self._ready: Queue[tuple[str, Any]] = Queue(depth)
        self._closing = Event()
        self._on_ready = on_ready
        self._has_ended = False
        self._is_begun = False
        self._is_last_ready = False
        self._thread = Thread(target=self._work, args=(items,), name="mlx_smolvlm prefetch", daemon=True)

    @property
    def num_ready(self) -> int:
        """Results that are there without waiting; the end, or an error, counts as one."""
        self._begin()
        return 1 if self._has_ended else self._ready.qsize()

    @property
    def is_last_ready(self) -> bool:
        """Whether the end, or an error, is among the results that are there: nothing comes after them."""
        return self._is_last_ready

    def __next__(self) -> T:
        if self._has_ended:
            raise StopIteration
        self._begin()
        kind, value = self._ready.get()
        if kind == "item":
            item: T = value
            return item
        self.close()
        if kind == "error":
            raise value
        raise StopIteration

    def close(self) -> None:
        """Stop after the item in flight, close the iterator, and wait for both."""
        self._has_ended = True
        self._closing.set()
        with suppress(Empty):
            self._ready.get_nowait()  # a thread that waits for room finds some at once
        if self._is_begun:
            with suppress(RuntimeError):  # its start was interrupted, so it ends by itself
                self._thread.join()

    def _begin(self) -> None:
        if not self._is_begun and not self._has_ended:
            self._is_begun = True
            self._thread.start()

    def _work(self, items: Iterator[T]) -> None:
        try:
            if self._closing.is_set():
                return
            for item in items:
                self._offer("item", item)
                if self._closing.is_set():
                    break
        except BaseException as error:  # whatever it is, it belongs to the consumer
            self._offer("error", as_exception(error))
        else:
            self._offer("end", None)
        finally:
            if hasattr(items, "close"):
                items.close()

    def _offer(self, kind: str, value: Any) -> None:
        while not self._closing.is_set():
            with suppress(Full):
                self._ready.put((kind, value), timeout=_POLL_S)
                self._is_last_ready = kind != "item"
                if self._on_ready is not None:
                    self._on_ready()
                return


class AtHand(Iterator[T]):
    """What `Prefetched` is for items that have to be made, for those that are there already."""

    def __init__(self, items: Iterator[T]):
        self._items = items

    @property
    def num_ready(self) -> int:
        """As many as there may be."""
        return sys.maxsize

    @property
    def is_last_ready(self) -> bool:
        """As in `Prefetched`."""
        return True

    def __next__(self) -> T:
        return next(self._items)

    def close(self) -> None:
        """Nothing is to be ended."""


def mapped_in_threads(function: Callable[[S], T], items: Iterable[S], workers: int) -> Generator[T, None, None]:
    """Apply a function to items in threads, some items ahead of the consumer; results in the order of the items.

    For functions that release Python's lock, as Pillow's resizing does. Items are taken in the consumer's thread.
    Closing the generator waits for what is in flight; the rest is not begun.
    """
    source, pending = iter(items), deque[Future[T]]()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="mlx_smolvlm worker")
    try:
        while True:
            for item in islice(source, workers + 1 - len(pending)):
                pending.append(pool.submit(function, item))
            if not pending:
                return
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
