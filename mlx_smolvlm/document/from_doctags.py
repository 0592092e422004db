"""DocTags that are already there -> another format, without a model."""

import argparse
import gc
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..command_line import starting
from ..command_line.standard_streams import say

_STANDARD_INPUT = _STANDARD_OUTPUT = "-"


def convert_doctags(arguments: argparse.Namespace, reading: Mapping[str, Any]) -> None:
    """Convert a file, or standard input; `reading` are the options that only reading has a use for, with defaults."""
    if arguments.input:
        raise ValueError("INPUT and --from-doctags are both given; convert DocTags without INPUT, or read INPUT alone")
    for name, default in reading.items():
        if getattr(arguments, name) != default:
            raise ValueError(f"--{name.replace('_', '-')} has no effect with --from-doctags; leave it out")
    if not arguments.from_doctags:
        raise ValueError("--from-doctags is empty; name a file of DocTags, or - for standard input")
    text = _read(arguments.from_doctags)
    target = _target(arguments.out, arguments.from_doctags, arguments.to)
    with starting.importing():
        from ..documents.doctags import DocTagsParser
        from ..documents.export import export
        from ..documents.tags import TAG
    if TAG.search(text) is None:
        say(f"note: no DocTags in {_called(arguments.from_doctags)}, so all of it is taken as text")
    with _no_search_for_cycles():
        parser = DocTagsParser()
        parser.feed(text)
        del text  # which may be large
        if open_tags := parser.open_tags:
            say(f"the DocTags end within {', '.join(open_tags)}: closed, with all text there is")
        exported = export(parser.close(), arguments.to)
    if target is None:
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
        print(exported, flush=True)
        return
    from ..files import refuse_to_replace, whole_file

    with whole_file(target, refuse_to_replace) as path, path.open("w", encoding="utf-8", newline="") as file:
        file.write(exported)
        file.write("\n")


@contextmanager
def _no_search_for_cycles() -> Iterator[None]:
    """Of objects: a document has none, and millions of them would be gone through again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _called(name: str) -> str:
    return "standard input" if name == _STANDARD_INPUT else name


def _read(name: str) -> str:
    """The content of a file, or of standard input."""
    shown = _called(name)
    path = Path(name).expanduser()
    if name != _STANDARD_INPUT and path.is_dir():
        raise IsADirectoryError(f"{name} is a folder; name a file of DocTags")
    content = sys.stdin.buffer.read() if name == _STANDARD_INPUT else path.read_bytes()
    if content.lstrip().startswith(b"%PDF-"):  # which may be plain ASCII
        raise ValueError(f"{shown} is a PDF, not DocTags; read it with a model: INPUT in the place of --from-doctags")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{shown}: byte {error.start} is not UTF-8 text; expected DocTags, as a model writes them, saved as UTF-8"
        ) from None
    if not text.strip():
        raise ValueError(f"{shown} is empty; expected DocTags, as a model writes them")
    return text


def _target(out: str | None, source: str, to: str) -> Path | None:
    """The file to write; one of the source's name in a folder that is there, or whose name ends with a slash."""
    if out in (None, _STANDARD_OUTPUT):
        return None
    place = Path(out).expanduser()
    if not place.is_dir() and not out.endswith(os.sep):
        return place
    place.mkdir(parents=True, exist_ok=True)
    stem = "document" if source == _STANDARD_INPUT else Path(source).stem
    return place / f"{stem}.{to}"
