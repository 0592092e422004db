"""The images and videos that rows name: where they are read from."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ...media.urls import is_url, path_of_file_url, redact_url
from ...options import quoted


class StoredMedium(Protocol):
    """An image or video that lies in a table."""

    def read(self) -> bytes:
        """The file's content."""


@dataclass(frozen=True)
class RowMedia:
    """Where names in rows count from.

    Attributes:
        folder: names that are no full paths count from here, and do not leave it.
        allow_urls: whether web addresses may be opened.
    """

    folder: Path
    allow_urls: bool = False

    def source(self, value: Any, kind: str) -> Any:
        """What an image or video is read from: a full path, an address, bytes, or a `StoredMedium`.

        Args:
            value: what the row says: a name, an address, bytes, or `{"bytes": ..., "path": ...}` as in Hugging Face's
                data sets.
            kind: "image" or "video".

        Raises:
            ValueError: something else, a web address that is not allowed, or a name that leads out of the folder.
        """
        if isinstance(value, dict) and value.keys() <= {"bytes", "path"}:
            value = value.get("path") if value.get("bytes") is None else value["bytes"]
        if isinstance(value, bytes) or hasattr(value, "read"):
            return value
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{kind} is {quoted(value)}, expected the name of a file")
        if is_url(value):
            return self._address(value, kind)
        name = os.path.expanduser(value)
        if os.path.isabs(name):
            return name
        path = os.path.normpath(self.folder / name)
        if os.path.commonpath([path, os.path.normpath(self.folder)]) != os.path.normpath(self.folder):
            raise ValueError(
                f"the {kind} {quoted(value)} leads out of {self.folder}; write its full path, or name the folder "
                "that holds all of them with --image-folder"
            )
        return path

    def _address(self, value: str, kind: str) -> str:
        scheme = value.partition(":")[0].lower()
        if scheme == "file":
            return path_of_file_url(value, value)
        if scheme != "data" and not self.allow_urls:
            raise ValueError(
                f"the {kind} {redact_url(value)} is on the web; download it first, or allow it with --allow-urls"
            )
        return value
