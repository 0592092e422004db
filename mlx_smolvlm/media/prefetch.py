"""Work ahead, and side by side, in threads."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, Generic, TypeVar

S = TypeVar("S")
T = TypeVar("T")
_POLL_S = 0.05  # how long a finished consumer waits for a thread that waits for room


def prefetched(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """Run an iterator in a thread of its own, at most `depth` items ahead of the consumer.

    Errors arrive where the item would have. Closing the generator stops the thread after the item in work, closes
    the iterator, and waits for both.
    """
    ready: Queue[tuple[str, Any]] = Queue(depth)
    closing = Event()

    def offer(kind: str, value: Any) -> None:
        while not closing.is_set():
            with suppress(Full):
                ready.put((kind, value), timeout=_POLL_S)
                return

    def work() -> None:
        try:
            for item in items:
                offer("item", item)
                if closing.is_set():
                    break
        except BaseException as error:  # whatever it is, it belongs to the consumer
            offer("error", error)
        else:
            offer("end", None)
        finally:
            if hasattr(items, "close"):
                items.close()

    thread = Thread(target=work, name="mlx_smolvlm prefetch", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        closing.set()
        with suppress(Empty):
            ready.get_nowait()  # a thread that waits for room finds some at once
        thread.join()


class Lookahead(Generic[S, T]):
    """Applies a function to items in threads, some items ahead of the consumer; results in the order of the items.

    For functions that release Python's lock, as Pillow's resizing does. Items are taken in the consumer's thread.
    """

    def __init__(self, function: Callable[[S], T], items: Iterable[S], workers: int):
        self._function = function
        self._items = iter(items)
        self._ahead = workers + 1
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="mlx_smolvlm worker")
        self._pending: deque[Future[T]] = deque()

    def __enter__(self) -> "Lookahead[S, T]":
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for what is in work; the rest is not begun."""
        self._pool.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        self._submit()
        if not self._pending:
            raise StopIteration
        return self._pending.popleft().result()

    @property
    def is_ready(self) -> bool:
        """Whether the next result, or the end, is there without waiting."""
        self._submit()
        return not self._pending or self._pending[0].done()

    def _submit(self) -> None:
        for item in islice(self._items, self._ahead - len(self._pending)):
            self._pending.append(self._pool.submit(self._function, item))


def mapped_in_threads(function: Callable[[S], T], items: Iterable[S], workers: int) -> Generator[T, None, None]:
    """The results of a `Lookahead`."""
    with Lookahead(function, items, workers) as results:
        yield from results
