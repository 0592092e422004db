"""Lines of JSON with raw bytes after them, on a stream of bytes."""

import os
from collections.abc import Iterator
from io import BufferedReader
from threading import Lock

from .requests import parse_json

MAX_LINE_BYTES = 1024**2
MAX_ATTACHMENT_BYTES = 64 * 1024**2
MAX_ATTACHMENTS = 256


class WireError(ValueError):
    """What cannot be read on from: where the next line begins is not known."""


def read_messages(stream: BufferedReader) -> Iterator[tuple[str, list[bytes]]]:
    """Each line with its attachments, until the stream ends.

    Yields:
        The line, and as many attachments as its field `attachments` has lengths, in bytes. A line that is not JSON has
        none.

    Raises:
        WireError: a line or attachment that is too long, lengths that are none, or a stream that breaks off.
    """
    while True:
        line = stream.readline(MAX_LINE_BYTES + 1)
        if not line:
            return
        if not line.endswith(b"\n"):
            raise WireError("a line is longer than 1 MiB, or the stream broke off within it")
        try:
            text = line.decode()
        except UnicodeDecodeError:
            raise WireError("a line is not UTF-8") from None
        if text.isspace():
            continue
        yield text, [_exactly(stream, length) for length in _lengths(text)]


def write_all(file: int, data: bytes) -> None:
    """Write all of it to a file descriptor. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


class LineWriter:
    """Writes lines, from any thread."""

    def __init__(self, file: int):
        """`file` is a file descriptor."""
        self._file = file
        self._lock = Lock()

    def write(self, line: str) -> None:
        """Write a line. Raises OSError: nobody reads any more."""
        data = line.encode("utf-8", "replace") + b"\n"
        with self._lock:
            write_all(self._file, data)


def _lengths(text: str) -> list[int]:
    if '"attachments"' not in text:  # most lines: they are parsed once, by the engine
        return []
    try:
        value = parse_json(text)
    except ValueError:
        return []  # reported by whoever reads the request
    lengths = value.get("attachments", []) if isinstance(value, dict) else []
    if not isinstance(lengths, list) or len(lengths) > MAX_ATTACHMENTS:
        raise WireError(f"attachments is no list of at most {MAX_ATTACHMENTS} lengths")
    for length in lengths:
        if type(length) is not int or not 0 <= length <= MAX_ATTACHMENT_BYTES:
            raise WireError("the length of an attachment is no whole number from 0 to 64 MiB")
    return lengths


def _exactly(stream: BufferedReader, length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise WireError("the stream broke off within an attachment")
    return data
