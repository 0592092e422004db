"""Files whose reading can be given up, however long a decoder goes on with it."""

import time
from collections.abc import Callable
from typing import Any, BinaryIO

from . import image_limits
from .image_limits import SlowImageError


class CheckedFile:
    """A file that asks before each read whether it is still wanted; decoders read in blocks of some kilobytes.

    It also refuses to go on once its thread has worked for `MAX_DECODE_S`: small files can be slow in many ways. That
    is the thread's own time, which does not depend on what else the machine does.
    """

    def __init__(self, file: BinaryIO, check_cancelled: Callable[[], None]):
        self._file = file
        self._check = check_cancelled
        self._start_s = time.thread_time()

    def read(self, size: int = -1) -> bytes:
        """The next bytes; raises what the check raises, or SlowImageError."""
        self._check()
        if time.thread_time() - self._start_s > image_limits.MAX_DECODE_S:
            raise SlowImageError(
                f"takes longer to decode than the limit of {image_limits.MAX_DECODE_S:g} s; save it in another format"
            )
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
