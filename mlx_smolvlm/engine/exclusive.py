"""Objects that one call at a time may use: a second one, in any thread, is refused instead of corrupting the first."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import Lock, RLock
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Exclusive:
    """Whether an object is in use. A use may end in another thread than it began in, as those of streams do."""

    def __init__(self, message: str):
        """`message` says what is in use, and what to do."""
        self._message = message
        self._lock = Lock()

    def refuse(self) -> None:
        """Raise ValueError if the object is in use."""
        if self._lock.locked():
            raise ValueError(self._message)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within, the object is in use. Raises ValueError if it is so already."""
        if not self._lock.acquire(blocking=False):
            raise ValueError(self._message)
        try:
            yield
        finally:
            self._lock.release()


class OneCallAtATime:
    """An object whose `exclusive` methods refuse to run while another thread runs one; `with` closes it at the end."""

    def __init__(self, message: str):
        """`message` says what is in use, and what to do."""
        self._message = message
        self._in_use = RLock()  # a method may call another

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything."""
        raise NotImplementedError


def exclusive(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """A method of a `OneCallAtATime` that must be the only one."""

    @wraps(method)
    def alone(self: Any, /, *args: P.args, **keywords: P.kwargs) -> T:
        if not self._in_use.acquire(blocking=False):
            raise ValueError(self._message)
        try:
            return method(self, *args, **keywords)
        finally:
            self._in_use.release()

    return alone
