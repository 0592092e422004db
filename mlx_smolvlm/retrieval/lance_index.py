"""An index in LanceDB, an embedded database, for more pages than fit here; and its search.

The table `pages` has a row for each page of each document: path, page, digest, and a column of multi-vectors, which
LanceDB scores by MaxSim on its own. What the vectors were made with is in a file beside.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..files import whole_folder, write_json
from .index_writer import read_chunk
from .manifest import Manifest, read_checked, read_manifest, read_settings, settings_as_json
from .maxsim import check_vectors, maxsim
from .page_index import SearchResult, best_of

SETTINGS_FILE = "mlx_smolvlm.json"
TABLE = "pages"
_MISSING = "this needs LanceDB: pip install 'mlx-smolvlm[lancedb]'"
_BATCH_BYTES = 64 * 1024**2
_MORE = 16  # results taken beyond those asked for, as LanceDB's own scores are rounded


def export_lancedb(folder: Path, target: Path) -> int:
    """Write an index as a LanceDB database, whole or not at all; returns the number of its pages.

    Args:
        folder: of the index.
        target: folder to make; one that this function has written is replaced.

    Raises:
        ModuleNotFoundError: lancedb is not installed.
        FileExistsError: something else has the name `target`.
        ValueError: the index is damaged, or has no pages, or a document whose name is not UTF-8.
    """
    manifest = read_manifest(folder)
    if not manifest.num_pages:
        raise ValueError(f"{folder} has no pages to export")
    for path in manifest.documents:
        try:
            path.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError(f"{path}: the name is not UTF-8, and LanceDB holds no other; rename the file") from None
    lancedb, arrow = _libraries()
    vectors = arrow.list_(arrow.list_(arrow.float16(), manifest.settings.vector_size))
    texts = [(name, arrow.string()) for name in ("path", "digest")]
    schema = arrow.schema([*texts, ("page", arrow.int32()), ("vectors", vectors)])
    with whole_folder(target, check_lancedb_target) as made:
        batches = _batches(folder, manifest, arrow, schema)
        lancedb.connect(str(made)).create_table(TABLE, data=batches, schema=schema)
        write_json(made / SETTINGS_FILE, settings_as_json(manifest.settings))
    return manifest.num_pages


def check_lancedb_target(target: Path) -> None:
    """Refuse early what `export_lancedb` could not write.

    Raises:
        FileExistsError: `target` is anything but an empty folder or a database that was exported.
        ModuleNotFoundError: lancedb is not installed.
    """
    is_free = not target.exists() or (target.is_dir() and not any(target.iterdir()))
    if target.is_symlink() or not (is_free or is_lancedb(target)):
        raise FileExistsError(f"{target} exists already and was not exported from an index; choose another name")
    if find_spec("lancedb") is None:
        raise ModuleNotFoundError(_MISSING)


def is_lancedb(folder: Path) -> bool:
    """Whether a folder is one that `export_lancedb` has made."""
    return (folder / SETTINGS_FILE).is_file()


class LanceIndex:
    """A database made by `export_lancedb`, to be searched.

    Attributes:
        folder: where it is.
        settings: what its vectors were made with.
    """

    def __init__(self, folder: Path):
        """
        Raises:
            ModuleNotFoundError: lancedb is not installed.
            ValueError: a database without the table, or of a newer version.
        """
        lancedb, _ = _libraries()
        self.folder = folder
        where = folder / SETTINGS_FILE
        self.settings = read_settings(read_checked(where), str(where))
        try:
            self._table = lancedb.connect(str(folder)).open_table(TABLE)
            self.num_pages: int = self._table.count_rows()
        except (ValueError, RuntimeError, OSError) as error:
            raise ValueError(f"{folder} has no table {TABLE!r} that LanceDB can read: {error}") from None

    def search(self, query: np.ndarray, top_k: int) -> list[SearchResult]:
        """As `PageIndex.search`. LanceDB's best pages are scored once more, exactly."""
        asked = self._table.search(query.astype(np.float16)).metric("cosine").limit(top_k + _MORE)
        found: list[dict[str, Any]] = asked.to_list()
        pages = check_vectors("vectors of the database", [np.array(row["vectors"]) for row in found])
        scores = maxsim([query.astype(np.float32)], pages)[0].tolist()
        rows = zip(found, scores, strict=True)
        return best_of((SearchResult(row["path"], row["page"], score, row["digest"]) for row, score in rows), top_k)


def _batches(folder: Path, manifest: Manifest, arrow: Any, schema: Any) -> Iterator[Any]:
    """Record batches of bounded size."""
    places: dict[str, list[tuple[str, int]]] = {}
    for document in manifest.documents.values():
        for number, digest in enumerate(document.pages, 1):
            if digest is not None:
                places.setdefault(digest, []).append((document.path, number))
    size = manifest.settings.vector_size
    rows: list[tuple[str, str, int, np.ndarray]] = []
    held = 0
    for chunk in manifest.chunks:
        vectors, start = read_chunk(folder, chunk, size), 0
        for digest, count in chunk.pages:
            own = vectors[start : start + count]
            start += count
            for path, number in places.get(digest, ()):
                rows.append((path, digest, number, own))
                held += own.nbytes
                if held >= _BATCH_BYTES:
                    yield _batch(rows, size, arrow, schema)
                    rows, held = [], 0
    if rows:
        yield _batch(rows, size, arrow, schema)


def _batch(rows: list[tuple[str, str, int, np.ndarray]], size: int, arrow: Any, schema: Any) -> Any:
    flat = arrow.array(np.concatenate([row[3] for row in rows]).reshape(-1), arrow.float16())
    inner = arrow.FixedSizeListArray.from_arrays(flat, size)
    offsets = arrow.array(np.cumsum([0, *(len(row[3]) for row in rows)]).astype(np.int32))
    columns = [arrow.array([row[place] for row in rows], schema.field(place).type) for place in range(3)]
    return arrow.RecordBatch.from_arrays([*columns, arrow.ListArray.from_arrays(offsets, inner)], schema=schema)


def _libraries() -> tuple[Any, Any]:
    try:
        import lancedb  # an extra
        import pyarrow
    except ModuleNotFoundError:
        raise ModuleNotFoundError(_MISSING) from None
    return lancedb, pyarrow
