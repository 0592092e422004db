"""Digests by which a resumed run knows whether its data and model are those that it began with."""

import os
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from ..options import MediaOptions
from .dataset.examples import Example
from .dataset.training_row import TrainingRow

_PIECE, _PIECES = 16 * 1024, 1024  # bytes, and places, that are looked at in a file; all of smaller ones


def data_digest(examples: Sequence[Example], rows: Iterable[TrainingRow], options: MediaOptions) -> str:
    """Of tokens, what counts of them, the files of images and videos, and how these are read."""
    digest = blake2b(repr(options).encode(), digest_size=16)
    for example in examples:
        digest.update(f"{example.name} {example.num_tiles} {len(example.input_ids)}\n".encode("utf-8", "replace"))
        digest.update(np.ascontiguousarray(example.input_ids).tobytes())
        digest.update(np.packbits(example.trained).tobytes())
    for row in rows:
        for source in _sources([*(message["content"] for message in row.messages), row.images]):
            digest.update(_of_file(Path(source)) if isinstance(source, str | Path) else _of_bytes(source))
    return digest.hexdigest()


def folder_digest(folder: Path, patterns: Sequence[str]) -> str:
    """Of the files of a folder that match a pattern."""
    files = sorted({file for pattern in patterns for file in folder.glob(pattern)})
    return blake2b(b"".join(file.name.encode() + _of_file(file) for file in files), digest_size=16).hexdigest()


def _of_file(path: Path) -> bytes:
    """Of its size and of pieces all over it: weights and videos are large."""
    try:
        if not path.is_file():  # a pipe would be waited for
            raise FileNotFoundError
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= _PIECE * _PIECES:
                return _of_bytes(file.read())
            digest = blake2b(size.to_bytes(8, "little"))
            for number in range(_PIECES):
                file.seek((size - _PIECE) * number // (_PIECES - 1))
                digest.update(file.read(_PIECE))
            return digest.digest()
    except (OSError, ValueError):  # an address, or a name that is none
        return _of_bytes(str(path).encode("utf-8", "replace"))


def _of_bytes(content: Any) -> bytes:
    """Of bytes, or of what a table holds."""
    return blake2b(content.read() if hasattr(content, "read") else content).digest()


def _sources(content: Any) -> Iterator[Any]:
    """What items of messages name or hold besides text: names, bytes, and what lies in tables."""
    if isinstance(content, dict):
        content = [value for key, value in content.items() if key not in ("type", "text")]
    if isinstance(content, list):
        for part in content:
            yield from _sources(part)
    elif isinstance(content, str | Path | bytes) or hasattr(content, "read"):
        yield content
