"""Parquet files and Hugging Face's `datasets` on the disk -> one object for each row. Needs pyarrow, an extra.

Images in tables are not kept: a row holds where its image lies, and it is read when it is needed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...model.json_fields import doubled_key, read_json
from ...options import quoted
from .data_files import Entry

TABLES = (".parquet", ".arrow")


@dataclass(frozen=True)
class StoredCell:
    """Bytes in a table.

    Attributes:
        file: the table.
        group, column, row: the cell.
        place: the keys and numbers that lead to the bytes within the cell.
    """

    file: Path
    group: int
    column: str
    row: int
    place: tuple[int | str, ...]

    def __repr__(self) -> str:
        return f"<bytes in {self.file.name}>"  # as messages show it

    def read(self) -> bytes:
        """The bytes. Raises ValueError if the table has changed."""
        try:
            value = _column(self.file, self.group, self.column)[self.row].as_py()
            for key in self.place:
                value = value[key]
        except (ValueError, KeyError, IndexError, TypeError):
            raise ValueError(f"{self.file} has changed since its rows were read") from None
        return bytes(value)


def table_rows(path: Path) -> Iterator[Entry]:
    """The rows of a Parquet or Arrow file.

    Raises:
        ModuleNotFoundError: pyarrow is not installed.
        ValueError: a file that cannot be read.
    """
    number = 0
    for group in range(_num_groups(path)):
        table = _group(path, group)
        if (twice := doubled_key([(name, None) for name in table.column_names])) is not None:
            raise ValueError(f"{path}: two columns are called {quoted(twice)}; leave one out")
        columns = {name: table.column(name) for name in table.column_names}
        for row in range(table.num_rows):
            number += 1
            fields = {
                name: _without_bytes(column[row].as_py(), StoredCell(path, group, name, row, ()))
                for name, column in columns.items()
            }
            yield f"{path.name}:{number}", fields


def files_of(folder: Path) -> list[Path]:
    """The files of a folder of rows: what `datasets` has saved, Parquet files, or `metadata.jsonl` beside images.

    Raises:
        ValueError: none of these, or several splits.
    """
    if (folder / "dataset_dict.json").is_file():
        splits = _names(folder / "dataset_dict.json", "splits")
        return files_of(folder / _the_one(folder, splits, ""))
    if (folder / "state.json").is_file():
        return [folder / name for name in _names(folder / "state.json", "_data_files", "filename")]
    found = sorted([*folder.glob("*.parquet"), *folder.glob("data/*.parquet")])
    if found:
        splits = sorted({file.name.partition("-")[0].removesuffix(".parquet") for file in found})
        _the_one(found[0].parent, splits, "*")
        return found
    for name in ("metadata.jsonl", "metadata.csv"):
        if (folder / name).is_file():
            return [folder / name]
    expected = "expected .parquet files, what datasets has saved, or metadata.jsonl"
    others = sorted(file for file in folder.iterdir() if file.suffix in (".jsonl", ".json", ".csv", ".tsv"))
    advice = f"; or name the file itself, such as {others[0]}" if others else ""
    raise ValueError(f"{folder} has no rows: {expected}{advice}")


def _names(file: Path, field: str, within: str | None = None) -> list[str]:
    """The names of what lies beside a file, as it lists them; `within` is the field of each that has the name."""
    listed = read_json(file).get(field)
    entries = listed if isinstance(listed, list) else [listed]
    names: list[Any] = [entry.get(within) if within and isinstance(entry, dict) else entry for entry in entries]
    for name in names:
        if not isinstance(name, str) or name != Path(name).name or name == "..":  # nothing outside the folder
            raise ValueError(f"{file}: {field!r} is {quoted(listed)}, expected names of what lies beside it")
    return names


def _the_one(folder: Path, splits: list[str], more: str) -> str:
    if len(splits) != 1:
        named, first = ", ".join(splits)[:200] or "none", splits[0][:100] if splits else "train"
        raise ValueError(f"{folder} has the splits {named}; name one of them, such as '{folder / first}{more}'")
    return splits[0]


def _without_bytes(value: Any, cell: StoredCell) -> Any:
    """A value with cells in the place of bytes."""
    if isinstance(value, bytes):
        return cell
    if isinstance(value, dict):
        return {key: _without_bytes(one, _within(cell, key)) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_bytes(one, _within(cell, number)) for number, one in enumerate(value)]
    return value


def _within(cell: StoredCell, key: int | str) -> StoredCell:
    return StoredCell(cell.file, cell.group, cell.column, cell.row, (*cell.place, key))


def _num_groups(path: Path) -> int:
    return 1 if path.suffix == ".arrow" else int(_parquet(path).num_row_groups)


@lru_cache(maxsize=2)
def _group(path: Path, group: int) -> Any:
    """A table of some rows; that of an .arrow file stays on the disk."""
    if path.suffix != ".arrow":
        return _parquet(path).read_row_group(group)
    pyarrow = _pyarrow()
    try:
        with pyarrow.memory_map(str(path)) as file:
            return pyarrow.ipc.open_stream(file).read_all()
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is no Arrow file as datasets saves it: {quoted(str(error))}") from None


@lru_cache(maxsize=2)
def _column(path: Path, group: int, column: str) -> Any:
    return (_group(path, 0) if path.suffix == ".arrow" else _parquet(path).read_row_group(group, [column]))[column]


def _parquet(path: Path) -> Any:
    _pyarrow()
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is no Parquet file: {quoted(str(error))}") from None


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ModuleNotFoundError:
        raise ModuleNotFoundError("tables need pyarrow: pip install 'mlx-smolvlm[parquet]'") from None
    return pyarrow
