"""`metrics.jsonl`: a line for each step and each validation, for programs and for the report."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class MetricsLog:
    """Appends to the file of a run. A line that a killed process left unfinished is removed by the next one.

    Attributes:
        path: the file.
        records: all of it: `{"step": 3, "loss": ..., "learning_rate": ...}` and `{"step": 3, "validation_loss": ...}`.
    """

    def __init__(self, path: Path, step: int = 0):
        """
        Args:
            path: the file; made if it is not there.
            step: the run goes on after so many steps: what the file says of later ones is removed.
        """
        self.path = path
        self.records: list[Record] = [record for record in _read(path) if record["step"] <= step]
        text = "".join(_line(record) for record in self.records)
        if path.is_file() and path.read_text(encoding="utf-8", errors="replace") == text:
            return
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)

    def add(self, record: Record) -> None:
        """Append a record, which has a "step". Raises OSError if it cannot be written."""
        self.records.append(record)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(_line(record))


def _read(path: Path) -> Iterator[Record]:
    """The records of a file, up to one that is not whole."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            return
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            return
        yield record


def _line(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
