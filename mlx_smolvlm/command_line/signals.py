"""Ends a command cleanly at SIGINT (Ctrl-C), SIGTERM, or when nobody reads its output any more."""

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import Event, Thread
from types import FrameType
from typing import Any, NoReturn

from .standard_streams import line_start, say

LIMIT_S = 0.6  # for Python's own way out, which is tidier
POLL_MS = 50  # how often the reader of our output is looked after
STOPPING = (signal.SIGINT, signal.SIGTERM)
Handler = Callable[[int, FrameType | None], Any]


def end_process(number: int, _: FrameType | None = None) -> NoReturn:
    """End with the status that shells give a process that this signal has ended: 130 or 143."""
    sys.exit(128 + number)


def leave_threads(number: int, _: FrameType | None = None) -> NoReturn:
    """End at once, with that status: threads may be within a download or a video, and Python would wait for them."""
    os._exit(128 + number)


@contextmanager
def handled_by(handler: Handler, signals: Sequence[int] = STOPPING) -> Iterator[None]:
    """Within: signals call `handler`. The main thread only."""
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


def end_at_once() -> None:
    """End the process as Ctrl-C does, with the line cleared that says what goes on."""
    if os.isatty(2):
        os.write(2, b"\r\x1b[K")
    os._exit(128 + signal.SIGINT)


@contextmanager
def if_held_up(act: Callable[[], None]) -> Iterator[None]:
    """Within: `act` is called, in a thread, if the block has not ended `LIMIT_S` seconds after Ctrl-C.

    Python's handlers run in the main thread, between two steps of its own; MLX may compute for seconds in one. The
    system tells a thread of the signal at once. The main thread only.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    is_over = Event()
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watcher = Thread(target=_watch_signals, args=[reader, is_over, act], name="mlx_smolvlm signals", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        signal.set_wakeup_fd(before)
        os.close(writer)  # which ends the thread
        watcher.join()
        os.close(reader)


class Stopping:
    """What `if_held_up` calls for work that is to stop while the process goes on."""

    def __init__(self, what: str, again: Callable[[], None] = end_at_once):
        """
        Args:
            what: said at the first time, in brackets.
            again: called at later times.
        """
        self._what = what
        self._again = again
        self._is_said = False

    def noticed(self) -> None:
        """Say that the work will stop; at later times, do what was given for them."""
        if self._is_said:
            self._again()
            return
        self._is_said = True
        say(f"{line_start()}({self._what})")


class SingleInterrupts:
    """Within its `with` block, Ctrl-C raises KeyboardInterrupt where it is `expected`, once, and else does nothing.

    A second one while the first is being answered would end the process. The main thread only.
    """

    def __init__(self, is_wanted: bool):
        """`is_wanted` False leaves Ctrl-C as it is."""
        self._is_wanted = is_wanted
        self._is_expected = False
        self._opened = ExitStack()

    def __enter__(self) -> "SingleInterrupts":
        if self._is_wanted:
            self._opened.enter_context(handled_by(self._handle, [signal.SIGINT]))
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @contextmanager
    def expected(self, is_expected: bool = True) -> Iterator[None]:
        """Within, Ctrl-C raises."""
        self._is_expected = is_expected
        try:
            yield
        finally:
            self._is_expected = False

    def _handle(self, *_: object) -> None:
        if self._is_expected:
            self._is_expected = False
            raise KeyboardInterrupt


def _watch_signals(reader: int, is_over: Event, act: Callable[[], None]) -> None:
    while received := os.read(reader, 1):
        if received[0] == signal.SIGINT and not is_over.wait(LIMIT_S):
            act()


class Interruption:
    """Within its `with` block, the first signal sets an event; a second one ends the process.

    Attributes:
        cancel: set at the first signal; work that checks it stops cleanly.
        received: the first signal's number; None if there was none.
    """

    def __init__(
        self, signals: Sequence[int] = STOPPING, second: Handler = end_process, *, watches_output: bool = False
    ) -> None:
        """
        Args:
            signals: which ones.
            second: what the second signal calls.
            watches_output: set the event also when the reader of standard output has gone. Between two lines nothing is
                printed that could fail, so a thread looks after the pipe itself.
        """
        self.cancel = Event()
        self.received: int | None = None
        self._second = second
        self._is_output_gone = False
        self._signals = signals
        self._watches_output = watches_output

    def __enter__(self) -> "Interruption":
        with ExitStack() as opened:
            if self._watches_output:
                opened.enter_context(self._output_watched())
            opened.enter_context(handled_by(self._handle, self._signals))
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def conclude(self) -> None:
        """After the block: end the process if that was asked for.

        Raises:
            SystemExit: there was a signal.
            BrokenPipeError: nobody reads the output any more.
        """
        if self.received is not None:
            end_process(self.received)
        if self._is_output_gone:
            raise BrokenPipeError

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            self._second(number, frame)
            return
        self.received = number
        self.cancel.set()

    @contextmanager
    def _output_watched(self) -> Iterator[None]:
        done = Event()
        watcher = Thread(target=self._watch_output, args=[done], name="mlx_smolvlm output", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def _watch_output(self, done: Event) -> None:
        try:
            output = sys.stdout.fileno()
        except (AttributeError, OSError, ValueError):  # none, or an object without a file
            return
        poll = select.poll()
        poll.register(output, 0)  # errors are reported unasked
        while not done.is_set():
            for _, event in poll.poll(POLL_MS):
                if event & (select.POLLERR | select.POLLHUP):  # else it is closed on our side
                    self._is_output_gone = True
                    self.cancel.set()
                return
