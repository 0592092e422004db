"""The files below a folder."""

import os
from collections.abc import Iterator
from pathlib import Path

from .urls import printable


def files_below(folder: Path, unread: list[str]) -> Iterator[Path]:
    """Files in a folder and its subfolders, in a fixed order, but nothing hidden; links are followed once.

    Args:
        folder: where to begin.
        unread: gets the subfolders that could not be looked into, each with the reason.

    Raises:
        OSError: not even `folder` can be read.
    """

    def note(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise error
        unread.append(f"{printable(str(error.filename), 300)} ({error.strerror})")

    seen: set[tuple[int, int]] = set()  # links may lead in a circle
    for parent, folders, names in os.walk(folder, onerror=note, followlinks=True):
        try:
            status = os.stat(parent)
        except OSError as error:
            note(error)
            continue
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        shown = [name for name in folders if not name.startswith(".")]
        folders[:] = sorted(shown, key=lambda name: (os.path.islink(os.path.join(parent, name)), name))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(parent, name)
