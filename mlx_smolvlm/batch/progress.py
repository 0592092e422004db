"""How far the work is: a bar on a terminal, elsewhere a line from time to time."""

import sys
import time
from contextlib import suppress
from typing import Any

REPORT_S = 30.0  # between two lines


class Progress:
    """Shows how many of the pictures are done. Nobody's reading it is no reason to end the work."""

    def __init__(self, total: int, is_shown: bool):
        """
        Args:
            total: pictures that are to do.
            is_shown: False shows nothing.
        """
        self._total = total
        self._done = self._errors = 0
        self._bar: Any = None
        self._start = self._reported = time.monotonic()
        self._is_shown = is_shown and total > 0

    def __enter__(self) -> "Progress":
        if self._is_shown and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, unit=" pictures", file=sys.stderr, dynamic_ncols=True, smoothing=0.05)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def add(self, is_error: bool) -> None:
        """Note that one more is done."""
        self._done += 1
        self._errors += is_error
        if self._bar is not None:
            if self._errors:
                self._bar.set_postfix_str(f"{self._errors} errors", refresh=False)
            self._bar.update()
        elif self._is_shown and time.monotonic() - self._reported >= REPORT_S and self._done < self._total:
            self._reported = time.monotonic()
            rate = self._done / (self._reported - self._start)
            left = duration((self._total - self._done) / rate)
            say(f"{self._done} of {self._total}, {self._errors} errors, {rate:.2g} pictures/s, {left} left")


def duration(seconds: float) -> str:
    """For people: 312 s, 12 min, 3 h 20 min."""
    if seconds < 600:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def say(message: str) -> None:
    """Print on stderr; if its reader has gone, the results are still wanted."""
    with suppress(BrokenPipeError):
        print(message, file=sys.stderr, flush=True)
