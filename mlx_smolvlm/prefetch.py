"""Work ahead, and side by side, in threads."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

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


def mapped_in_threads(function: Callable[[S], T], items: Iterable[S], workers: int) -> Generator[T, None, None]:
    """Apply a function to items in a few threads, results in the order of the items, `workers` items at a time.

    For functions that release Python's lock, as Pillow's resizing does.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="mlx_smolvlm resize") as pool:
        pending: deque[Future[T]] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
