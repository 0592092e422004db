"""Files whose reading can be given up, however long a decoder goes on with it."""

from collections.abc import Callable
from typing import Any, BinaryIO


class CheckedFile:
    """A file that asks before each read whether it is still wanted; decoders read in blocks of some kilobytes."""

    def __init__(self, file: BinaryIO, check_cancelled: Callable[[], None]):
        self._file = file
        self._check = check_cancelled

    def read(self, size: int = -1) -> bytes:
        """The next bytes; raises what the check raises."""
        self._check()
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
