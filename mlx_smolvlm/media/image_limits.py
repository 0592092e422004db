"""Images that are slow or take much memory though they have few pixels. Standard library only."""

import os
import time
import weakref
from collections.abc import Callable
from typing import Any, BinaryIO

MAX_IMAGE_SIDE = 131_072  # beyond it, rows of a pixel each take ten times the memory of their pixels
MAX_IMAGE_FILE_BYTES = 2 * 1024**3  # more than the pixels of any image that is read
MIN_SCANS = 12  # passes of a JPEG's decoder that are allowed at any size; encoders make some ten
FULL_SCANS = 8  # passes that are allowed over the largest image, and in proportion more over smaller ones
MAX_DECODE_S = 12.0  # a thread's own time for one image; the largest photos take half of it
# Decoders that take much time for each byte, and cannot be stopped while they decode.
MAX_BYTES_OF_FORMAT = {"JPEG2000": 16 * 1024**2, "AVIF": 128 * 1024**2, "WEBP": 256 * 1024**2}
_CHUNK_BYTES = 1024**2


class SlowImageError(ValueError):
    """An image takes longer to decode than any should."""


def check_image_bytes(file: BinaryIO, name: str, format_name: str | None = None) -> None:
    """Refuse a file that is larger than any image, or than those of its format may be.

    `name` is what the message calls it. The file is at its beginning afterwards.
    """
    num_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    most = MAX_BYTES_OF_FORMAT.get(format_name or "", MAX_IMAGE_FILE_BYTES)
    if num_bytes > most:
        what = f"a {format_name} file" if format_name in MAX_BYTES_OF_FORMAT else "an image's file"
        raise ValueError(f"{name}: has {num_bytes} bytes, the limit of {what} is {most}; save it in another format")


def check_sides(width: int, height: int, name: str) -> None:
    """Refuse an image that is too long; `name` is what the message calls it."""
    if max(width, height) > MAX_IMAGE_SIDE:
        raise ValueError(f"{name}: {width}x{height} pixels, the limit of one side is {MAX_IMAGE_SIDE}; cut it")


def check_scans(
    file: BinaryIO, num_pixels: int, name: str, max_pixels: int, check: Callable[[], None] = lambda: None
) -> None:
    """Refuse a progressive JPEG that is slow rather than large: each scan goes over all pixels again.

    Scans are counted by their markers. Within compressed data those bytes do not occur, and in metadata hardly ever.
    `check` is called between blocks of the file; it may raise to stop.
    """
    place = file.tell()
    file.seek(0)
    scans, last = 0, b""
    while chunk := file.read(_CHUNK_BYTES):
        check()
        scans += (last + chunk).count(b"\xff\xda")
        last = chunk[-1:]
    file.seek(place)
    most = max(MIN_SCANS, FULL_SCANS * max_pixels // max(1, num_pixels))
    if scans > most:
        raise ValueError(f"{name}: a JPEG of {scans} scans, the limit at its size is {most}; save it again")


class CheckedFile:
    """A file that asks before each read whether it is still wanted; decoders read in blocks of some kilobytes.

    It also refuses to go on once its thread has worked for `MAX_DECODE_S`: small files can be slow in many ways. That
    is the thread's own time, which does not depend on what else the machine does.
    """

    def __init__(self, file: BinaryIO, check_cancelled: Callable[[], None]):
        self._file = file
        self._check = check_cancelled
        self._descriptor: int | None = None
        self._start_s = time.thread_time()

    def hand_over(self, check_cancelled: Callable[[], None]) -> None:
        """From now on it is read by the calling thread, whose check and time count."""
        self._check = check_cancelled
        self._start_s = time.thread_time()

    def read(self, size: int = -1) -> bytes:
        """The next bytes; raises what the check raises, or SlowImageError."""
        self._check()
        if time.thread_time() - self._start_s > MAX_DECODE_S:
            raise SlowImageError(
                f"takes longer to decode than the limit of {MAX_DECODE_S:g} s; save it in another format"
            )
        return self._file.read(size)

    def fileno(self) -> int:
        """A descriptor that stays open as long as this object: a decoder in a thread may outlive the caller's file."""
        if self._descriptor is None:
            self._descriptor = os.dup(self._file.fileno())
            weakref.finalize(self, os.close, self._descriptor)
        return self._descriptor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
