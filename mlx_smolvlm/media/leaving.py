"""Runs decoders, which cannot be stopped, in threads that are left to end by themselves when they are cancelled."""

import os
import time
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import TypeVar

T = TypeVar("T")
POLL_S = 0.05  # how often it is asked whether the image is still wanted
MAX_LEFT = 2  # decoders that nobody waits for any more: further images wait for them
MAX_PIXELS_AT_ONCE = 2 * 178_956_970  # of images that are decoded, those that nobody waits for any more included


class Left(Exception):
    """Nobody waits for the image any more."""


class PixelBudget:
    """Pixels that may be decoded at a time. An image that is larger than all of them has to be alone."""

    def __init__(self, most: int):
        self._most = most
        self._begin()

    @property
    def used(self) -> int:
        """Pixels that are being decoded."""
        return sum(self._held.values())

    @property
    def num_left(self) -> int:
        """Decoders that nobody waits for any more."""
        return len(self._left)

    def take(self, holder: object, count: int, check: Callable[[], None]) -> None:
        """Wait until there is room for so many pixels, which `holder` then has; `check` may raise to stop."""
        if self._process != os.getpid():
            self._begin()
        while not self._has_taken(holder, count):
            check()
            time.sleep(POLL_S)  # a condition variable, interrupted by Ctrl-C, would lose its lock

    def leave(self, holder: object) -> None:
        """Nobody waits for it any more."""
        with self._lock:
            self._left.add(holder)

    def release(self, holder: object) -> None:
        """It is decoded, or will never be; nothing happens the second time."""
        with self._lock:
            self._held.pop(holder, None)
            self._left.discard(holder)

    def _has_taken(self, holder: object, count: int) -> bool:
        with self._lock:
            if (self._held and self.used + count > self._most) or self.num_left >= MAX_LEFT:
                return False
            self._held[holder] = count
            return True

    def _begin(self) -> None:
        """With nothing: the threads of a process that was forked are not in the new one."""
        self._held: dict[object, int] = {}
        self._left: set[object] = set()
        self._lock = Lock()
        self._process = os.getpid()


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
    holder, left, lock = object(), Event(), Lock()
    has_begun = has_ended = False

    def check_left() -> None:
        if left.is_set():
            raise Left

    def run() -> None:
        nonlocal has_begun, has_ended
        with lock:
            if left.is_set():  # its start was interrupted
                return
            has_begun = True
        try:
            results.append(work(check_left))
        except BaseException as error:  # whatever it is, it belongs to who waits
            failures.append(error)
        finally:
            with lock:
                has_ended = True
                BUDGET.release(holder)

    try:
        BUDGET.take(holder, num_pixels, check)
        thread = Thread(target=run, name="mlx_smolvlm decoding", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system has no further thread: it is decoded here, and cannot be left
            return work(check)
        while thread.is_alive():
            check()
            thread.join(POLL_S)
    finally:
        with lock:
            left.set()
            if not has_begun:
                BUDGET.release(holder)
            elif not has_ended:
                BUDGET.leave(holder)
    if failures:
        raise failures.pop()  # kept here, it would keep this frame, and with it the pixels
    return results[0]
