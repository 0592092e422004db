"""INPUT of the command -> what to ask about: a folder, a glob, a list, a single file or an address."""

import glob
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..media.folders import files_below
from ..media.signatures import is_picture_of_folder, skipped_note
from ..media.urls import is_url
from ..options import quoted
from .items import Item, make_item, plural
from .lists import is_list, read_list

SIDECARS = frozenset({".txt", ".json", ".xmp"})  # what `--sidecar` writes beside images, and other programs read there
_OTHER_LISTS = frozenset({".json", ".parquet", ".xlsx"})  # what a list may be taken to be
_EXPECTED = "name a folder, a glob, an image, an address, or a list (.jsonl, .csv or .txt)"


@dataclass
class LeftOut:
    """What was found in folders and is not asked about.

    Attributes:
        files: how many of each kind, by suffix where there is one ("NEF"), else by content ("video").
        unread: folders that could not be looked into, with the reason.
        fields: of lists, that were left out of account as asked.
    """

    files: Counter[str] = field(default_factory=Counter)
    unread: list[str] = field(default_factory=list)
    fields: set[str] = field(default_factory=set)

    def notes(self) -> list[str]:
        """A line for each of both, for people."""
        lines = [skipped_note(self.files)] if self.files else []
        if self.unread:
            named = f"{self.unread[0]}{' and others' if len(self.unread) > 1 else ''}"
            lines.append(f"{plural(len(self.unread), 'folder')} could not be read: {named}")
        return lines


def read_items(
    sources: Sequence[str],
    is_left_out: Callable[[Path], bool] = lambda path: False,
    *,
    sidecar: str | None = None,
    ignored_fields: Collection[str] = (),
    left_out: LeftOut | None = None,
) -> list[Item]:
    """What INPUT names, in a fixed order, each once.

    A folder is searched for images, in its subfolders too; content tells them from other files. A glob (`**` goes
    into subfolders) and a list may name videos as well.

    Args:
        sources: folders, globs, lists, images, videos or addresses.
        is_left_out: says which files are none of the input, wherever they lie: those that results are kept in.
        sidecar: suffix of the files that are written beside images, of which a glob leaves out all.
        ignored_fields: fields of lists that are left out of account.
        left_out: gets what was found in folders and is no image.

    Raises:
        FileNotFoundError: nothing of that name, or nothing that matches.
        ValueError: a folder without images, a list that cannot be read, or an ignored field that no list has.
    """
    left_out = LeftOut() if left_out is None else left_out
    items: dict[Item, None] = {}
    for source in sources:
        items.update(dict.fromkeys(_read_source(source, is_left_out, sidecar, ignored_fields, left_out)))
    if absent := sorted(set(ignored_fields) - left_out.fields):
        raise ValueError(f"--ignore-fields {','.join(absent)}: no list of the input has such a field; leave it out")
    return list(items)


def _read_source(
    source: str,
    is_left_out: Callable[[Path], bool],
    sidecar: str | None,
    ignored_fields: Collection[str],
    left_out: LeftOut,
) -> Iterator[Item]:
    if is_url(source):
        yield make_item(source)
        return
    path = Path(source).expanduser()
    if path.is_dir():
        found = LeftOut()
        names = sorted(_images_in(path, is_left_out, found))
        left_out.files += found.files
        left_out.unread += found.unread
        if not names:
            raise ValueError("; ".join([f"no images in {source}", *found.notes()]))
        yield from (Item(name, name, is_video=False) for name in names)
    elif path.is_file():
        if is_left_out(path):
            raise ValueError(f"{source} is both the input and where results are kept; name another file with --out")
        if path.suffix.lower() in _OTHER_LISTS:
            raise ValueError(f"{source} is no image; a list is a .jsonl, a .csv or a .txt file")
        yield from read_list(path, ignored_fields, left_out.fields) if is_list(path) else [make_item(source)]
    elif glob.has_magic(source):
        names = sorted(glob.glob(os.path.expanduser(source), recursive=True))
        names = [name for name in names if os.path.isfile(name) and not is_left_out(Path(name))]
        names = [name for name in names if sidecar is None or Path(name).suffix != sidecar]
        if not names:
            raise FileNotFoundError(f"no file matches {quoted(source, 300)}")
        yield from map(make_item, names)
    elif path.exists():
        raise ValueError(f"{source} is neither a folder nor a file; {_EXPECTED}")
    else:
        raise FileNotFoundError(f"no folder or file {quoted(source, 300)}; {_EXPECTED}")


def _images_in(folder: Path, is_left_out: Callable[[Path], bool], found: LeftOut) -> Iterator[str]:
    """Images below a folder, but hidden ones; `found` counts the rest, but no sidecars of images.

    An error if not even `folder` can be read.
    """
    with_sidecars: set[str] = set()
    sidecars: list[tuple[Path, Counter[str]]] = []
    for path in files_below(folder, found.unread):
        other: Counter[str] = Counter()
        if is_left_out(path):
            continue
        if is_picture_of_folder(path, other):
            with_sidecars.add(str(path.with_suffix("")))
            yield str(path)
        elif path.suffix in SIDECARS:
            sidecars.append((path, other))
        else:
            found.files += other
    for path, other in sidecars:
        if str(path.with_suffix("")) not in with_sidecars:
            found.files += other
