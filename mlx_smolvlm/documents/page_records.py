"""The pages that have been read, kept in the output folder, so that a run that was ended goes on where it was.

A hidden folder has a file for each page, written whole: a page is there or it is not, whatever ends the process. Pages
are known by the content of their document, so a file that was renamed is not read again, and one that has changed is.
"""

import fcntl
import json
import os
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ..files import refuse_foreign, whole_file, write_json
from ..media.urls import is_url
from .page_reading import PageReading

FOLDER = ".pages"  # within the output folder
_RUN, _OUTPUTS, _DOCUMENT = "run.json", "outputs.jsonl", "document.json"
_MADE_BY = "mlx-smolvlm document"
_FIELDS = {  # of a page's record
    "doctags": str,
    "finish_reason": str | None,
    "prompt_tokens": int,
    "completion_tokens": int,
    "seconds": float | int,
}


@dataclass(frozen=True)
class _Output:
    """A line of the list of files that were written.

    Attributes:
        name: relative to the output folder.
        digest: of what was written.
        source, document: the document's name and the digest of its content.
    """

    name: str
    digest: str
    source: str
    document: str


class PageRecords:
    """The records of one output folder, which one process at a time may write. Close it when done."""

    def __init__(self, out: Path):
        """Open the records in `out`; both are made if they are not there.

        Raises:
            FileExistsError: another program's folder has their name.
            ValueError: another process writes there.
            OSError: nothing can be written there, or it is no folder.
        """
        self._out = out
        folder = out / FOLDER
        if os.path.lexists(folder) and not folder.is_dir():
            raise FileExistsError(f"{folder} is no folder of this program; name another folder with --out")
        folder.mkdir(parents=True, exist_ok=True)
        holds_anything = any(not path.name.startswith(".") for path in folder.iterdir())  # hidden: a killed process's
        if holds_anything and _read(folder / _RUN).get("made_by") != _MADE_BY:
            raise FileExistsError(f"{folder} is not a folder of this program; name another folder with --out")
        self._folder = folder
        self._lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise ValueError(
                f"another process is writing to {out}; wait for it to end, or name another folder"
            ) from None
        except OSError:  # no locks on this file system
            pass
        self._outputs: dict[str, list[_Output]] = {}  # the last two of each file
        for output in _outputs(folder / _OUTPUTS):
            self._outputs[output.name] = [*self._outputs.get(output.name, [])[-1:], output]
        self._contents: dict[str, set[str]] = {}  # digests that each source has had
        for path in folder.iterdir():
            if path.is_dir() and isinstance(source := _read(path / _DOCUMENT).get("source"), str):
                self._contents.setdefault(source, set()).add(path.name)

    def close(self) -> None:
        """Let others write there."""
        os.close(self._lock)

    def begin(self, model: str, settings: Mapping[str, Any]) -> None:
        """Note what the pages are read with.

        Args:
            model: its name, for people.
            settings: what pages depend on, such as options and the model's fingerprint; of plain types.

        Raises:
            ValueError: the folder holds pages that were read with something else.
        """
        run = {"made_by": _MADE_BY, "model": model, **json.loads(json.dumps(settings))}
        held = _read(self._folder / _RUN)
        if held:
            others = [name for name in run if name != "model" and run[name] != held.get(name)]
            if others:
                shown = f" ({held.get('model')})" if "fingerprint" in others else ""
                what = "another model" if "fingerprint" in others else f"other options ({', '.join(others)})"
                raise ValueError(
                    f"{self._out} holds pages that were read with {what}{shown}; name another folder with --out, or "
                    "remove this one"
                )
            return
        with whole_file(self._folder / _RUN) as file:
            write_json(file, run)

    def note_document(self, digest: str, source: str, num_pages: int, in_use: Container[str]) -> bool:
        """Note a document.

        Args:
            digest, source, num_pages: of the document; its absolute path, or its address.
            in_use: digests of all documents of this run.

        Returns:
            Whether the same source had another content before. Pages of that are dropped if nothing else has it.
        """
        folder = self._folder / digest
        others = self._contents.get(source, set()) - {digest}
        for other in others:
            if other not in in_use:
                for file in (self._folder / other).iterdir():
                    file.unlink()
                (self._folder / other).rmdir()
        self._contents[source] = {digest}
        record = {"source": source, "num_pages": num_pages}
        if _read(folder / _DOCUMENT) != record:
            folder.mkdir(exist_ok=True)
            with whole_file(folder / _DOCUMENT) as file:
                write_json(file, record)
        return bool(others)

    def has(self, digest: str, number: int) -> bool:
        """Whether there is a record of a page, which may be damaged."""
        return self._path(digest, number).exists()

    def get(self, digest: str, number: int, source: str) -> PageReading:
        """A page that is there. Raises ValueError if its record is damaged."""
        path = self._path(digest, number)
        record = _read(path)
        try:
            width, height = map(int, record["size"])
            values = {name: record[name] for name in _FIELDS}
            if all(isinstance(value, _FIELDS[name]) for name, value in values.items()):
                return PageReading(source, number, size=(width, height), **values)
        except (KeyError, TypeError, ValueError):
            pass
        raise ValueError(f"{path} is damaged; run the same command again")

    def put(self, digest: str, reading: PageReading) -> None:
        """Keep a page, whole or not at all."""
        record = {name: getattr(reading, name) for name in _FIELDS} | {"size": list(reading.size)}
        with whole_file(self._path(digest, reading.number)) as file:
            file.write_text(json.dumps(record), encoding="utf-8")  # escapes: text may hold half a surrogate pair

    def check_output(self, target: Path, source: str, document: str) -> None:
        """Refuse to write where something else is.

        Args:
            target: a file of the output folder.
            source, document: the document's name, as in `note_document`, and the digest of its content.

        Raises:
            FileExistsError: a file that this program has not written, or that was changed since; the result of another
                document that is still there; or a file in the place of a folder.
        """
        for folder in target.relative_to(self._out).parents:
            if (self._out / folder).exists() and not (self._out / folder).is_dir():
                raise FileExistsError(f"{self._out / folder} is no folder, so {target} cannot be written; move it away")
        known = self._outputs.get(target.relative_to(self._out).as_posix(), [])
        digests = [output.digest for output in known]
        what = "file that this command has written and nobody has changed"
        refuse_foreign(target, lambda path: _digest(path.read_bytes()) in digests, what)
        if not known or not target.exists() or known[-1].source == source or known[-1].document == document:
            return
        if is_url(known[-1].source) or os.path.exists(known[-1].source):
            raise FileExistsError(
                f"{target} is the result of {known[-1].source}, not of {source}; name another folder with --out, or "
                "remove it"
            )

    def write_output(self, target: Path, content: bytes, source: str, document: str) -> None:
        """Write a file of the output folder, whole or not at all; see `check_output`."""
        output = _Output(target.relative_to(self._out).as_posix(), _digest(content), source, document)
        known = self._outputs.get(output.name, [])
        is_there = target.is_file() and target.read_bytes() == content
        if is_there and known and known[-1] == output:
            return
        self.check_output(target, source, document)
        self._outputs[output.name] = [*known[-1:], output]
        self._note(output)
        if not is_there:
            target.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(target, lambda path: self.check_output(path, source, document)) as file:
                file.write_bytes(content)

    def _path(self, digest: str, number: int) -> Path:
        return self._folder / digest / f"{number:05d}.json"

    def _note(self, output: _Output) -> None:
        """Add a line, before the file itself is written: a kill between harms nothing, nor does half a line."""
        with (self._folder / _OUTPUTS).open("a", encoding="ascii") as file:
            file.write(f"\n{json.dumps(asdict(output))}\n")
            file.flush()
            os.fsync(file.fileno())


def _outputs(path: Path) -> Iterator[_Output]:
    """The lines of a list of outputs, in order; what was cut off by a kill is passed over."""
    if not path.is_file():  # a pipe would be waited for
        return
    with path.open(encoding="ascii", errors="replace") as file:
        for line in file:
            with suppress(ValueError, TypeError):
                yield _Output(**json.loads(line))


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty if there is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()
