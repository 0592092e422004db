"""What long work tells about itself, if anybody listens: how far it is, and which source it reads.

Context variables, so that a command line can listen without an argument through every function between.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str, int, int], None]
ByteListener = Callable[[int, int], None]
_listener: ContextVar[Listener | None] = ContextVar("mlx_smolvlm_listener", default=None)
_byte_listener: ContextVar[ByteListener | None] = ContextVar("mlx_smolvlm_byte_listener", default=None)
_source: ContextVar[str] = ContextVar("mlx_smolvlm_source", default="")


@contextmanager
def reported_to(listener: Listener, on_bytes: ByteListener | None = None) -> Iterator[None]:
    """Within: `report` calls `listener`, if it is called by the same thread.

    Args:
        listener: given what begins, its number, and how many there are.
        on_bytes: given bytes that are there and bytes in all of a download, in place of the bars on stderr.
    """
    token, byte_token = _listener.set(listener), _byte_listener.set(on_bytes)
    try:
        yield
    finally:
        _listener.reset(token)
        _byte_listener.reset(byte_token)


def report(what: str, number: int = 0, total: int = 0) -> None:
    """Tell what begins now, such as "reading image", number 3 of 17; the empty text if others tell from now on."""
    listener = _listener.get()
    if listener is not None:
        listener(what, number, total)


def byte_listener() -> ByteListener | None:
    """Who listens to the bytes of downloads that this thread makes."""
    return _byte_listener.get()


@contextmanager
def named_source(name: str) -> Iterator[None]:
    """Within: warnings are about this file or address."""
    token = _source.set(name)
    try:
        yield
    finally:
        _source.reset(token)


def current_source() -> str:
    """What this thread reads; empty if nothing."""
    return _source.get()
