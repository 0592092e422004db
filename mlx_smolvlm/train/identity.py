"""Digests by which a resumed run knows whether its data and model are those that it began with."""

import os
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from .examples import Example
from .training_row import TrainingRow

_LOOKED_AT = 64 * 1024  # bytes at each end of a file; all of smaller ones


def data_digest(examples: Sequence[Example], rows: Iterable[TrainingRow]) -> str:
    """Of tokens, what counts of them, and the files of images and videos."""
    digest = blake2b(digest_size=16)
    for example in examples:
        digest.update(f"{example.name} {example.num_tiles} {len(example.input_ids)}\n".encode("utf-8", "replace"))
        digest.update(np.ascontiguousarray(example.input_ids).tobytes())
        digest.update(np.packbits(example.trained).tobytes())
    for row in rows:
        for source in [*_sources(row.messages), *row.images]:
            if isinstance(source, str | Path):
                digest.update(_of_file(Path(source)))
    return digest.hexdigest()


def folder_digest(folder: Path, patterns: Sequence[str]) -> str:
    """Of the files of a folder that match a pattern."""
    files = sorted({file for pattern in patterns for file in folder.glob(pattern)})
    return blake2b(b"".join(file.name.encode() + _of_file(file) for file in files), digest_size=16).hexdigest()


def _of_file(path: Path) -> bytes:
    """Of its size and both its ends: videos are large."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(_LOOKED_AT)
            if size > _LOOKED_AT:
                file.seek(max(_LOOKED_AT, size - _LOOKED_AT))
                content += file.read(_LOOKED_AT)
    except (OSError, ValueError):  # an address, or a name that is none
        return blake2b(str(path).encode("utf-8", "replace")).digest()
    return blake2b(size.to_bytes(8, "little") + content).digest()


def _sources(messages: Any) -> list[Any]:
    """What items of messages name besides text."""
    items = [item for message in messages if isinstance(message.get("content"), list) for item in message["content"]]
    return [
        value
        for item in items
        if isinstance(item, dict)
        for key, value in item.items()
        if key not in ("type", "text") and isinstance(value, str | Path)
    ]
