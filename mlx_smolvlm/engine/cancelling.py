"""Cancelling: one exception and one check, made between two units of work."""

from collections.abc import Callable
from threading import Event


class Cancelled(Exception):
    """A cancel event was set between two units of work."""


def cancel_check(*events: Event | None) -> Callable[[], None]:
    """A function that raises `Cancelled` once one of the events is set."""
    watched = [event for event in events if event is not None]

    def check() -> None:
        for event in watched:
            if event.is_set():
                raise Cancelled

    return check
