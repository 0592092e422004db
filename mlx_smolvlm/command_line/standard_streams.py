"""Standard input, output and errors that are closed, full, or read by nobody: the work goes on as far as it can."""

import os
import sys
from contextlib import suppress
from typing import Any

_MAX_SHOWN = 1000  # characters of a name
_NAMES = ("stdin", "stdout", "stderr")  # by their file descriptors


def open_missing_streams() -> None:
    """Put the null device in the place of standard streams that are closed.

    Else the next file that is opened would take the place, and what libraries print would end up in it; and `print`
    takes standard output where there is no stream for errors.
    """
    for descriptor, name in enumerate(_NAMES):
        try:
            os.fstat(descriptor)
        except OSError:
            _replace(descriptor)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8", errors="replace"))  # noqa: SIM115 - stays open


def say(message: str) -> None:
    """Print on stderr; if it cannot be written, or nobody reads it, the work is still wanted."""
    if sys.stderr is None:
        return
    try:
        print(message, file=sys.stderr, flush=True)
    except RuntimeError:  # a signal's handler has come between the parts of another line, and Python refuses
        with suppress(OSError, ValueError):
            os.write(sys.stderr.fileno(), f"{message}\n".encode(errors="replace"))
    except (OSError, ValueError):  # ValueError: it is closed
        silence(sys.stderr)


def shown(path: object) -> str:
    """A file's name as part of a line: without line breaks, and what could steer a terminal."""
    from ..media.urls import printable  # --help does without

    return printable(str(path), _MAX_SHOWN)


def line_start() -> str:
    """What messages on stderr begin with: on a terminal, it clears the line that says what goes on."""
    return "\r\x1b[K" if sys.stderr is not None and sys.stderr.isatty() else ""


def settle(stream: Any) -> None:
    """Write out what a stream holds, or drop it, so that Python does not fail when it ends."""
    try:
        stream.flush()
    except (OSError, ValueError, AttributeError):
        silence(stream)


def silence(stream: Any) -> None:
    """Drop what a stream still holds, and whatever is printed from here on."""
    with suppress(OSError, ValueError, AttributeError):
        _replace(stream.fileno())


def _replace(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
