"""`index.json` of an index: what it was made with, where each page's vectors are, and which pages a document has.

An index is a folder of plain files:

    index.json              this
    vectors-000001.npy      (num_vectors, vector_size) float16, the vectors of one page behind those of another
    ...

Pages are known by the digest of their pixels, so a page that several documents have is stored once. What `index.json`
does not name is of no account: it is written last, and replaced as a whole.
"""

import json
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..files import whole_file
from ..model.json_fields import Fields, check_file_size
from ..options import quoted

MANIFEST = "index.json"
FORMAT = "mlx-smolvlm page index"
VERSION = 1
CHUNK_NAME = re.compile(r"vectors-[0-9]{6,12}\.npy")
_MAX_BYTES = 2 * 1024**3
_DIGEST = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class IndexSettings:
    """What all vectors of an index have in common.

    Attributes:
        model: folder or Hub id of the checkpoint.
        adapters: folder or Hub id, and weight, of each adapter.
        dtype: the type in which the model computed.
        fingerprint: of the model with its adapters, see `Retriever.fingerprint`.
        prompt_format: see `load_retriever`.
        vector_size: numbers of each vector.
        pool_factor: how many vectors became one; 1 for none, see `pooling.py`.
    """

    model: str
    adapters: tuple[tuple[str, float], ...]
    dtype: str
    fingerprint: str
    prompt_format: str
    vector_size: int
    pool_factor: int


@dataclass(frozen=True)
class IndexedDocument:
    """A document.

    Attributes:
        path: absolute, or an address.
        digest: of its content.
        pages: digest of each page; None for one that could not be read.
    """

    path: str
    digest: str
    pages: tuple[str | None, ...]


@dataclass(frozen=True)
class VectorChunk:
    """A file of vectors, with the digest and the number of vectors of each page in it."""

    file: str
    pages: tuple[tuple[str, int], ...]

    @property
    def num_vectors(self) -> int:
        """Rows of the file."""
        return sum(count for _, count in self.pages)


@dataclass
class Manifest:
    """The content of `index.json`; `documents` are by their paths."""

    settings: IndexSettings
    chunks: list[VectorChunk] = field(default_factory=list)
    documents: dict[str, IndexedDocument] = field(default_factory=dict)
    next_chunk: int = 1

    @property
    def stored(self) -> dict[str, int]:
        """Digest -> number of vectors of the pages in the chunks."""
        return {digest: count for chunk in self.chunks for digest, count in chunk.pages}

    @property
    def num_pages(self) -> int:
        """Pages of all documents, those that could not be read left out."""
        return sum(page is not None for document in self.documents.values() for page in document.pages)

    def write(self, folder: Path) -> None:
        """Replace `index.json`, whole or not at all."""
        content = {
            **settings_as_json(self.settings),
            "next_chunk": self.next_chunk,
            "chunks": [{"file": chunk.file, "pages": chunk.pages} for chunk in self.chunks],
            "documents": [
                {"path": one.path, "digest": one.digest, "pages": one.pages} for one in self.documents.values()
            ],
        }
        with whole_file(folder / MANIFEST) as file:
            text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))  # of any file name
            file.write_text(text + "\n", encoding="ascii")


def is_index(folder: Path) -> bool:
    """Whether a folder has an `index.json`."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> Manifest:
    """Read `index.json`.

    Raises:
        FileNotFoundError: no such folder, or no index in it.
        ValueError: another program's file, one of a newer version, or a damaged one.
    """
    path = folder / MANIFEST
    if not path.is_file():
        what = f"no {MANIFEST} in it" if folder.is_dir() else "no such folder"
        raise FileNotFoundError(f"{folder} is no index of pages: {what}; make one with python -m mlx_smolvlm.index")
    content = read_checked(path)
    try:
        return _parsed(content, str(path))
    except (ValueError, TypeError, KeyError, IndexError) as error:
        if isinstance(error, ValueError) and str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}); make the index again") from None


def settings_as_json(settings: IndexSettings) -> dict[str, Any]:
    """What a file says of an index's vectors, for `read_checked` and `read_settings`."""
    values = {entry.name: getattr(settings, entry.name) for entry in fields(IndexSettings)}
    return {"format": FORMAT, "version": VERSION, **values}


def read_checked(path: Path) -> dict[str, Any]:
    """The JSON object of a file of an index. Raises ValueError as `read_manifest`."""
    check_file_size(path, _MAX_BYTES)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); make the index again") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is no index of pages of this program")
    version = content.get("version")
    if type(version) is not int or version < 1:
        raise ValueError(f"{path}: the version is {quoted(version)}, expected a number")
    if version > VERSION:
        raise ValueError(
            f"{path} was written by a newer version of this program (format {version}, known is {VERSION}); update it"
        )
    return content


def read_settings(content: dict[str, Any], where: str) -> IndexSettings:
    """The settings that `settings_as_json` wrote. Raises ValueError if one is missing or of another kind."""
    values = Fields(content, where)
    return IndexSettings(
        model=values.get("model", str),
        adapters=tuple((str(path), float(weight)) for path, weight in values.get("adapters", list)),
        dtype=values.get("dtype", str),
        fingerprint=values.get("fingerprint", str),
        prompt_format=values.get("prompt_format", str),
        vector_size=values.positive("vector_size"),
        pool_factor=values.positive("pool_factor"),
    )


def _parsed(content: dict[str, Any], where: str) -> Manifest:
    values, settings = Fields(content, where), read_settings(content, where)
    chunks = []
    for raw in values.get("chunks", list):
        pages = tuple((digest, count) for digest, count in raw["pages"])
        if not CHUNK_NAME.fullmatch(raw["file"]):  # nothing outside the folder
            raise ValueError(f"{where} names the file {quoted(raw['file'])}, which no index has; make the index again")
        if not all(_DIGEST.fullmatch(digest) and type(count) is int and 0 < count < 2**31 for digest, count in pages):
            raise ValueError(f"{where}: {raw['file']} has pages that are none; make the index again")
        chunks.append(VectorChunk(raw["file"], pages))
    documents = {}
    for raw in values.get("documents", list):
        document = IndexedDocument(str(raw["path"]), str(raw["digest"]), tuple(raw["pages"]))
        if not all(page is None or _DIGEST.fullmatch(page) for page in document.pages):
            raise ValueError(f"{where}: {quoted(document.path)} has pages that are none; make the index again")
        documents[document.path] = document
    return Manifest(settings, chunks, documents, values.positive("next_chunk"))
