"""Runs decoders, which cannot be stopped, in threads that are left to end by themselves when they are cancelled."""

from collections.abc import Callable
from threading import Condition, Event, Lock, Thread
from typing import TypeVar

T = TypeVar("T")
POLL_S = 0.05  # how often it is asked whether the image is still wanted
MAX_LEFT = 2  # decoders that nobody waits for any more: further images wait for them
MAX_PIXELS_AT_ONCE = 2 * 178_956_970  # of images that are decoded, those that nobody waits for any more included


class Left(Exception):
    """Nobody waits for the image any more."""


class PixelBudget:
    """Pixels that may be decoded at a time. An image that is larger than all of them has to be alone.

    Attributes:
        num_left: decoders that nobody waits for any more.
    """

    def __init__(self, most: int):
        self._most = most
        self._used = 0
        self.num_left = 0
        self._changed = Condition()

    @property
    def used(self) -> int:
        """Pixels that are being decoded."""
        return self._used

    def take(self, count: int, check: Callable[[], None]) -> None:
        """Wait until there is room for so many; `check` may raise to stop."""
        with self._changed:
            while (self._used and self._used + count > self._most) or self.num_left >= MAX_LEFT:
                check()
                self._changed.wait(POLL_S)
            self._used += count

    def leave(self) -> None:
        """Nobody waits for one of them any more."""
        with self._changed:
            self.num_left += 1

    def release(self, count: int, *, is_left: bool = False) -> None:
        """They are decoded."""
        with self._changed:
            self._used -= count
            self.num_left -= is_left
            self._changed.notify_all()


BUDGET = PixelBudget(MAX_PIXELS_AT_ONCE)


def run_leaving(work: Callable[[Callable[[], None]], T], num_pixels: int, check: Callable[[], None]) -> T:
    """The result of `work`, computed in a thread; if `check` raises meanwhile, that is raised at once.

    Args:
        work: gets a function that it calls now and then, and which raises `Left` once nobody waits any more.
        num_pixels: of its image.
        check: called in this thread, many times a second.
    """
    results: list[T] = []
    failures: list[BaseException] = []
    left, lock = Event(), Lock()
    has_ended = False

    def check_left() -> None:
        if left.is_set():
            raise Left

    def run() -> None:
        nonlocal has_ended
        try:
            results.append(work(check_left))
        except BaseException as error:  # whatever it is, it belongs to who waits
            failures.append(error)
        finally:
            with lock:
                has_ended = True
                BUDGET.release(num_pixels, is_left=left.is_set())

    BUDGET.take(num_pixels, check)
    thread = Thread(target=run, name="mlx_smolvlm decoding", daemon=True)
    try:
        thread.start()
    except BaseException:
        BUDGET.release(num_pixels)
        raise
    try:
        while thread.is_alive():
            check()
            thread.join(POLL_S)
    except BaseException:
        with lock:
            left.set()
            if not has_ended:
                BUDGET.leave()
        raise
    if failures:
        raise failures[0]
    return results[0]
