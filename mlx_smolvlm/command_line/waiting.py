"""A line on terminals that says what goes on while nothing is printed."""

import shutil
import sys
import time
from contextlib import ExitStack, suppress
from threading import Event, Lock, Thread

from ..media.reporting import reported_to
from .standard_streams import can_go_back

FIRST_S = 0.2  # what is quicker needs no line
STEP_S = 0.1  # between two of the turning marks
MARKS = "|/-\\"
CLEAR = "\r\x1b[K"


class Waiting:
    """Within its `with` block, the newest text that was told stands on stderr with the seconds, until `stop`.

    Nothing is shown where stderr is no terminal that can go back in its line.
    """

    def __init__(self, is_wanted: bool = True):
        self._is_shown = is_wanted and can_go_back()
        self._text = ""
        self._since = 0.0
        self._stopping = Event()
        self._thread: Thread | None = None
        self._lock = Lock()  # so that nothing is written after `stop`
        self._opened = ExitStack()

    def __enter__(self) -> "Waiting":
        if self._is_shown:
            self._opened.enter_context(reported_to(self.tell))
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._opened.close()

    def tell(self, what: str, number: int = 0, total: int = 0) -> None:
        """Show what goes on, such as "reading image", 3, 17. An empty text stops."""
        if not self._is_shown:
            return
        if not what:
            self.stop()
            return
        self._text = f"{what} {number} of {total}" if total > 1 else what
        if self._thread is None:
            self._since = time.monotonic()
            self._stopping = Event()
            self._thread = Thread(target=self._turn, args=[self._stopping], name="mlx_smolvlm waiting", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Clear the line: something is printed now."""
        thread, self._thread = self._thread, None
        if thread is not None:
            with self._lock:
                self._stopping.set()
                if time.monotonic() - self._since >= FIRST_S:
                    _write(CLEAR)
            thread.join()

    def _turn(self, stopping: Event) -> None:
        wait_s, number = FIRST_S, 0
        while not stopping.wait(wait_s):
            text = f"{MARKS[number % len(MARKS)]} {self._text} ({time.monotonic() - self._since:.0f} s)"
            with self._lock:
                if not stopping.is_set():
                    _write(CLEAR + text[: shutil.get_terminal_size().columns - 1])
            wait_s, number = STEP_S, number + 1


def _write(text: str) -> None:
    with suppress(OSError, ValueError):  # a terminal that has gone is no reason to end the work
        sys.stderr.write(text)
        sys.stderr.flush()
