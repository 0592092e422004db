"""INPUT of the command -> what to ask about: a folder, a glob, a JSONL or CSV list, or a single file."""

import csv
import glob
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..media.urls import is_url
from ..options import quoted

IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("avif", "bmp", "gif", "heic", "heif", "jp2", "jpeg", "jpg"),
        *("pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff", "webp"),
    )
)
VIDEO_SUFFIXES = frozenset(
    f".{name}" for name in ("avi", "flv", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts", "ogv", "ts", "webm", "wmv")
)
OTHER_LISTS = frozenset({".txt", ".json", ".tsv", ".ndjson", ".parquet", ".xlsx"})  # what a list may be taken to be
PATH_FIELDS = ("path", "file_name", "image", "video")  # the second is what Hugging Face's image folders call it


@dataclass(frozen=True)
class Item:
    """An image or video to ask about.

    Attributes:
        path: as the input names it, and as the results will.
        source: where it is read from: `path`, or in full where that counts from the folder of a list.
        is_video: whether it is a video.
        prompt: the question about it; None for that of the command.
    """

    path: str
    source: str
    is_video: bool
    prompt: str | None = None


def read_items(sources: Sequence[str], is_left_out: Callable[[Path], bool] = lambda path: False) -> list[Item]:
    """The items that INPUT names, in a fixed order, each once.

    A folder is searched for images, in its subfolders too. A glob (`**` goes into subfolders) and a list may name
    videos as well, recognised by their suffix.

    Args:
        sources: folders, globs, lists (.jsonl, .csv), images or videos.
        is_left_out: says which files are none of the input, wherever they lie: those that results are kept in.

    Raises:
        FileNotFoundError: nothing of that name, or nothing that matches.
        ValueError: a folder without images, or a list that cannot be read.
    """
    items: dict[Item, None] = {}
    for source in sources:
        items.update(dict.fromkeys(_read_source(source, is_left_out)))
    return list(items)


def _read_source(source: str, is_left_out: Callable[[Path], bool]) -> Iterator[Item]:
    path = Path(source).expanduser()
    if path.is_dir():
        names = [name for name in sorted(_images_in(path)) if not is_left_out(Path(name))]
        if not names:
            raise ValueError(f"no images in {source} (files with the suffixes {', '.join(sorted(IMAGE_SUFFIXES))})")
        yield from map(_item, names)
    elif path.is_file():
        if is_left_out(path):
            raise ValueError(f"{source} is both the input and where results are kept; name another file with --out")
        suffix = path.suffix.lower()
        if suffix in OTHER_LISTS:
            raise ValueError(f"{source} is not an image; a list is a .jsonl or a .csv file")
        yield from _read_list(path) if suffix in _READERS else [_item(source)]
    elif glob.has_magic(source):
        names = sorted(glob.glob(os.path.expanduser(source), recursive=True))
        names = [name for name in names if os.path.isfile(name) and not is_left_out(Path(name))]
        if not names:
            raise FileNotFoundError(f"no file matches {quoted(source, 300)}")
        yield from map(_item, names)
    elif path.exists():
        raise ValueError(f"{source} is neither a folder nor a file; name a folder, a glob, a .jsonl or a .csv file")
    else:
        raise FileNotFoundError(
            f"no folder or file {quoted(source, 300)}; name a folder, a glob, a .jsonl or a .csv file"
        )


def _images_in(folder: Path) -> Iterator[str]:
    """Images below a folder, but hidden ones; what cannot be looked into is an error."""

    def refuse(error: OSError) -> None:
        raise error

    seen: set[tuple[int, int]] = set()  # links may lead in a circle
    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        shown = [name for name in folders if not name.startswith(".")]
        folders[:] = sorted(shown, key=lambda name: (os.path.islink(os.path.join(parent, name)), name))
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield os.path.join(parent, name)


def _item(name: str, source: str | None = None, is_video: bool | None = None, prompt: str | None = None) -> Item:
    if is_video is None:
        address = name.partition("?")[0] if is_url(name) else name
        is_video = Path(address).suffix.lower() in VIDEO_SUFFIXES
    return Item(name, source or name, is_video, prompt)


def _read_list(path: Path) -> Iterator[Item]:
    """The entries of a list file."""
    number = 0
    try:
        for number, entry in _READERS[path.suffix.lower()](path):
            try:
                yield _entry(entry, path)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None
    if not number:
        raise ValueError(f"{path} names nothing; expected an image in each line")


def _entry(entry: Any, path: Path) -> Item:
    if isinstance(entry, str):
        entry = {"path": entry}
    if not isinstance(entry, dict):
        raise ValueError(f"expected an object with a path, got {json.dumps(entry)[:80]}")
    field = next((field for field in PATH_FIELDS if entry.get(field)), None)
    if field is None:
        found = ", ".join(entry)[:80] or "none"
        raise ValueError(f"no path; expected one of the fields {', '.join(PATH_FIELDS)}, got {found}")
    name, prompt = entry[field], entry.get("prompt")
    for key, value in ((field, name), ("prompt", prompt)):
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{key} is {json.dumps(value)[:80]}, expected text")
    is_elsewhere = is_url(name) or os.path.isabs(name)
    source = name if is_elsewhere else os.path.abspath(path.parent / name)
    return _item(name, source, True if field == "video" else None, prompt if prompt and prompt.strip() else None)


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except (json.JSONDecodeError, RecursionError) as error:
                    raise ValueError(f"{path}, line {number} is not JSON: {error}") from None


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, strict=True)
        try:
            columns = rows.fieldnames or []
            if columns and not set(PATH_FIELDS) & set(columns):
                named = ", ".join(columns)[:200]
                expected = " or ".join(PATH_FIELDS)
                raise ValueError(f"{path} begins with the columns {named}; expected {expected} among them")
            for row in rows:
                if None in row or None in row.values():
                    raise ValueError(f"{path}, line {rows.line_num}: expected {len(columns)} values, one per column")
                yield rows.line_num, row
        except csv.Error as error:
            advice = "; keep so much in a .jsonl list" if "field limit" in str(error) else ""
            raise ValueError(f"{path}, line {rows.line_num} is not CSV: {error}{advice}") from None


_READERS: dict[str, Callable[[Path], Iterator[tuple[int, Any]]]] = {".jsonl": _json_lines, ".csv": _csv_rows}
