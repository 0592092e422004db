"""Work ahead in a thread."""

from collections.abc import Generator, Iterator
from contextlib import suppress
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

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
