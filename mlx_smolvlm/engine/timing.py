"""Seconds spent in each stage of an answer."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Timing:
    """Seconds spent so far in each stage; `time_to_first_token` counts from the call to the first token.

    Videos are decoded while the model works: `processing` is the time for which it had to wait for pixels.
    """

    processing: float = 0.0
    vision: float = 0.0
    prefill: float = 0.0
    time_to_first_token: float = 0.0
    decode: float = 0.0  # after the first token


class Stopwatch:
    """The clock of one call."""

    def __init__(self) -> None:
        self.timing = Timing()
        self._start = time.perf_counter()
        self._first_token: float | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add what happens within to a stage."""
        start = time.perf_counter()
        yield
        spent = getattr(self.timing, name) + time.perf_counter() - start
        self.timing = replace(self.timing, **{name: spent})

    def token(self) -> None:
        """Note that a token is ready."""
        now = time.perf_counter()
        if self._first_token is None:
            self._first_token = now
            self.timing = replace(self.timing, time_to_first_token=now - self._start)
        self.timing = replace(self.timing, decode=now - self._first_token)
