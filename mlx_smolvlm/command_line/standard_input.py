"""What options take from standard input and other pipes: text for `-`, images for `-` and process substitution."""

import argparse
import os
import stat
import sys
from collections.abc import Sequence
from typing import BinaryIO

from ..media.urls import is_url, printable
from ..options import FetchPolicy

MAX_TEXT_BYTES = 2**20
MAX_IMAGE_BYTES = FetchPolicy().max_bytes
STANDARD_INPUT = ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")


def check_standard_input(arguments: argparse.Namespace, texts: Sequence[str], taken_by: str | None = None) -> None:
    """Refuse a second reader of standard input.

    Args:
        arguments: of the command line; `image` and `video` are looked at where there are any.
        texts: names of the options that take text.
        taken_by: what reads standard input anyway.

    Raises:
        ValueError: two readers, or a video.
    """
    readers = [] if taken_by is None else [taken_by]
    readers += [f"--{name.replace('_', '-')} -" for name in texts if getattr(arguments, name) == "-"]
    readers += [f"--image {source}" for source in getattr(arguments, "image", []) if source in STANDARD_INPUT]
    for source in getattr(arguments, "video", []):
        if source == "-" or _is_pipe(source):
            raise ValueError(
                f"--video {printable(source, 200)}: a video is not read from a pipe; save it to a file first"
            )
    if len(readers) > 1:
        raise ValueError(f"{' and '.join(readers)}: standard input can be read once only; give one of them as a file")


def read_texts(arguments: argparse.Namespace, names: Sequence[str]) -> None:
    """Put what standard input says in place of `-` for an option.

    Raises:
        ValueError: it is empty, too long, or not UTF-8.
    """
    for name in names:
        if getattr(arguments, name) == "-":
            setattr(arguments, name, _text(f"--{name.replace('_', '-')} -"))


def read_pipes(sources: Sequence[str]) -> list[str | bytes]:
    """Images as they are named, and the content of those that come from standard input or another pipe.

    A pipe can be read only once, and an image may have to be opened again.

    Raises:
        ValueError: a terminal, or more than 64 MiB.
    """
    return [_content(source) if source == "-" or _is_pipe(source) else source for source in sources]


def _is_pipe(source: str) -> bool:
    if is_url(source):
        return False
    try:
        mode = os.stat(source).st_mode
    except (OSError, ValueError):  # what is wrong with a name is said where it is opened
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _content(source: str) -> bytes:
    name = "standard input" if source == "-" else printable(source, 200)
    if source == "-":
        if sys.stdin.isatty():
            raise ValueError("--image -: standard input is a terminal; pipe an image into it, or name a file")
        content = _read(sys.stdin.buffer, MAX_IMAGE_BYTES, name)
    else:
        with open(source, "rb", buffering=0) as pipe:
            content = _read(pipe, MAX_IMAGE_BYTES, name)
    if not content:
        raise ValueError(f"{name} is empty; expected the content of an image file")
    return content


def _text(option: str) -> str:
    if sys.stdin.isatty():
        print(f"({option}: type the text; Ctrl-D ends it)", file=sys.stderr, flush=True)
    try:
        text = _read(sys.stdin.buffer, MAX_TEXT_BYTES, f"{option}: standard input").decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ValueError(f"{option}: standard input is not UTF-8 text") from None
    if not text:
        raise ValueError(f"{option}: standard input is empty; expected text")
    return text


def _read(file: BinaryIO, max_bytes: int, name: str) -> bytes:
    content = bytearray()
    while chunk := file.read(2**20):
        content += chunk
        if len(content) > max_bytes:
            raise ValueError(f"{name} has more than the limit of {max_bytes} bytes; use a smaller one")
    return bytes(content)
