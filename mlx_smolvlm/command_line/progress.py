"""Progress on stderr: a bar on a terminal, elsewhere a line from time to time."""

import os
import sys
import time
from contextlib import suppress
from typing import Any

from .standard_streams import say

REPORT_S = 30.0  # between two lines


class Progress:
    """Reports progress, stage by stage. If nobody reads stderr any more, the work goes on."""

    def __init__(self, is_shown: bool = True):
        """`is_shown` False shows nothing."""
        self._is_shown = is_shown
        self._bar: Any = None
        self._waiting: Any = None
        self._total = self._done = self._first = 0
        self._unit = ""
        self._start = self._reported = 0.0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stage(self, text: str = "", total: int = 0, unit: str = "", done: int = 0) -> None:
        """A stage begins, and the one before has ended.

        Args:
            text: what is done; printed at once where there is no bar for it.
            total: how many `unit`s `advance` will count, with those done before; 0 if it is not called.
            unit: what is counted, such as "images"; "B" stands for bytes.
            done: how many were done before, by a run that was stopped.
        """
        self.close()
        self._total, self._done, self._first, self._unit = total, done, done, unit
        self._start = self._reported = time.monotonic()
        from ..media.reporting import report

        report("")  # the line that says what goes on, if there is one
        if not self._is_shown:
            return
        if total > 0 and _has_terminal():
            from tqdm import tqdm  # slow to import; comes with huggingface_hub

            is_bytes = unit == "B"
            self._bar = tqdm(
                total=total,
                initial=done,
                desc=text or None,
                unit=unit if is_bytes else f" {unit}",
                unit_scale=is_bytes,
                file=sys.stderr,
                dynamic_ncols=True,
                smoothing=0.05,
                leave=not text,  # a stage with a name is one of several
            )
        elif text:
            say(text)
            if _has_terminal():
                from .waiting import Waiting

                self._waiting = Waiting()
                self._waiting.tell("working")

    def advance(self, count: int = 1, note: str = "") -> None:
        """So many more are done. `note` stands beside the numbers."""
        self._done += count
        if self._bar is not None:
            with suppress(OSError):  # a terminal that has gone
                self._bar.set_postfix_str(note, refresh=False)
                self._bar.update(count)
        elif self._is_shown and 0 < self._done < self._total and time.monotonic() - self._reported >= REPORT_S:
            self._reported = time.monotonic()
            size, unit = (1e6, "MB") if self._unit == "B" else (1, self._unit)
            rate = (self._done - self._first) / (self._reported - self._start)
            left = duration((self._total - self._done) / rate)
            counts = f"{self._done / size:.0f} of {self._total / size:.0f}"
            say(", ".join(filter(None, [counts, note, per_second(rate / size, unit), f"{left} left"])))

    def reach(self, done: float) -> None:
        """So many are done in all."""
        self.advance(round(done) - self._done)

    def close(self) -> None:
        """The last stage has ended, well or not."""
        if self._waiting is not None:
            self._waiting.stop()
            self._waiting = None
        if self._bar is not None:
            with suppress(OSError):
                self._bar.close()
            self._bar = None


def _has_terminal() -> bool:
    """Whether a bar can be drawn: on a terminal that can go back in its line."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def duration(seconds: float) -> str:
    """For people: 312 s, 12 min, 3 h 20 min."""
    if seconds < 600:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def per_second(rate: float, unit: str) -> str:
    """For people, without exponents: 290 images/s, 2.5 images/s, 36 images/h."""
    if rate < 0.1:
        rate, per = 3600 * rate, "h"
    else:
        per = "s"
    return f"{rate:.0f} {unit}/{per}" if rate >= 10 else f"{rate:.2g} {unit}/{per}"


def counted(count: int, noun: str) -> str:
    """For people: 1 page, 1,200 pages."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
