"""Waits for what is to come to hold, however busy the machine is."""

import time
from collections.abc import Callable

PATIENCE_S = 20.0  # for what takes a fraction of a second


def until(holds: Callable[[], object], limit_s: float = PATIENCE_S) -> None:
    """Wait until something holds."""
    end_s = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end_s, "it did not come to hold"
        time.sleep(0.005)
