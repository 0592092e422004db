"""Files that are dropped on a terminal: it types their paths, quoted or escaped, into the line."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..media.signatures import is_media_file
from ..media.urls import path_of_file_url

_WORD = re.compile(r"""(?<!\S)(?:'[^']*'|"[^"]*"|(?:\\.|[^\s\\])+)(?!\S)""")
_ENDINGS = "?!.,:;"


def take_media(line: str) -> tuple[str, list[str]]:
    """Tell the images and videos in a line from the question.

    Full paths of files that are there count, and a line of nothing but names of files. In the middle of a question,
    the file's name stands in for its path.

    Returns:
        The question, and the paths in order.
    """
    if (whole := _media_path(line.strip())) is not None:
        return "", [whole]
    words = list(_words(line))
    if words and all(_media_path(value) is not None for _, _, value in words):
        return "", [path for _, _, value in words if (path := _media_path(value)) is not None]
    paths: list[str] = []
    question, done = "", 0
    for start, end, value in words:
        if not value.startswith(("/", "~", "file://")):
            continue
        path, ending = _media_path(value), ""
        if path is None and value[-1:] in _ENDINGS:
            path, ending = _media_path(value.rstrip(_ENDINGS)), value[len(value.rstrip(_ENDINGS)) :]
        if path is None:
            continue
        paths.append(path)
        is_inside = bool((question + line[done:start]).strip()) and bool(line[end:].strip() or ending)
        question += line[done:start] + (Path(path).name + ending if is_inside else "")
        done = end
    return (question + line[done:]).strip(), paths


def _words(line: str) -> Iterator[tuple[int, int, str]]:
    """Where each word begins and ends, and what it says without quotes and backslashes."""
    for match in _WORD.finditer(line):
        text = match[0]
        is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
        yield match.start(), match.end(), text[1:-1] if is_quoted else re.sub(r"\\(.)", r"\1", text)


def _media_path(text: str) -> str | None:
    """The path of an image or video that is there; None for any other text."""
    with suppress(OSError, RuntimeError, ValueError):
        if text.startswith("file://"):
            text = path_of_file_url(text, text)
        if text and is_media_file(Path(text).expanduser()):
            return text
    return None
