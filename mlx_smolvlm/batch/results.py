"""The results file: a record for each image, each written whole, none lost and none made twice."""

import fcntl
import os
import sys
from collections.abc import Container, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

from ..files import whole_file
from .layouts import layout_of, refuse_legacy
from .record import Result

STDOUT = Path("-")
_START_BYTES = 64  # enough to recognise a file


class ResultsFile:
    """A results file that is being written, by this process alone.

    Attributes:
        path: the file; its name says how results stand in it, see `layouts.py`.
        is_locked: False where the file system knows no locks.
        errors: for each record, by `Result.key`, whether it has an error.
        cut: the keys of those whose answer is cut.
        runs: one record for each `Result.run` there is.
        repaired: what was left of a record that had not been written whole, if anything; it has been cut off.
    """

    def __init__(self, path: Path):
        """Open the file, or make it.

        Raises:
            ValueError: another process is writing it, or a record, unless it is the last one, is not a result.
            OSError: it cannot be read and written.
        """
        self.path = path
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder; name a file in it, such as {path / 'results.jsonl'}")
        if path.exists() and not path.is_file():
            raise ValueError(
                f"{path} is not a file that results can be kept in; name another one, or - for standard output"
            )
        if not path.absolute().parent.is_dir():
            raise FileNotFoundError(f"no folder {path.parent} to write {path.name} in; make it first")
        self._layout = layout_of(path)
        self.errors: dict[bytes, bool] = {}
        self.cut: set[bytes] = set()
        self.runs: dict[str, Result] = {}
        self._end = self._size = 0  # behind the last record, and behind all of it
        self._file = _opened(path)
        try:
            self.is_locked = _lock(self._file, path)
            self.repaired = self._repair()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "ResultsFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, result: Result) -> None:
        """Add a record, whole or not at all.

        Raises:
            ResultsChanged: another program has removed, replaced or changed the file.
            OSError: the disk is full or gone.
        """
        self.check()
        record = self._layout.encode(result)
        before = self._layout.between if self._end else self._layout.opening
        try:
            self._put(before + record + self._layout.closing)
        except OSError as error:
            with suppress(OSError):
                self._put(self._layout.closing if self._end else b"")
                os.ftruncate(self._file.fileno(), self._size)
            raise OSError(
                f"{self.path} cannot be written: {error.strerror}. What it holds is kept; make room and run the same "
                "command again"
            ) from None
        self._end += len(before) + len(record)
        self._size = self._end + len(self._layout.closing)
        self._note(result)

    def merge(self, other: Result) -> None:
        """Add a record that another file holds, unless it is here."""
        if other.key not in self.errors:
            self.write(other)

    def lines(self) -> Iterator[Result]:
        """What is in the file, one by one."""
        with open(self.path, "rb") as file:
            yield from self._layout.results(file)

    def drop_errors(self, keys: Container[bytes]) -> int:
        """Forget the records with errors whose `Result.key` is among `keys`; returns how many.

        The file is replaced as a whole, where it lies if `path` is a link to it.
        """
        dropped = {key for key, is_error in self.errors.items() if is_error and key in keys}
        if not dropped:
            return 0
        with ExitStack() as on_failure:
            with whole_file(self.path) as path:
                new = on_failure.enter_context(_opened(path))
                _lock(new, self.path)  # before others can see it
                end, before = 0, self._layout.opening
                with open(path, "ab") as file:
                    for result in self.lines():
                        if result.key not in dropped:
                            end += file.write(before + self._layout.encode(result))
                            before = self._layout.between
                    size = end + file.write(self._layout.closing if end else b"")
            on_failure.pop_all()  # closed by `close`
        self._file.close()
        self._file, self._end, self._size = new, end, size
        self.errors = {key: is_error for key, is_error in self.errors.items() if key not in dropped}
        return len(dropped)

    def check(self) -> None:
        """Raise ResultsChanged if another program has removed or replaced the file, or changed its length."""
        own = os.fstat(self._file.fileno())
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            raise ResultsChanged(self.path, "deleted") from None
        if not os.path.samestat(own, there):
            raise ResultsChanged(self.path, "replaced")
        if own.st_size != self._size:
            raise ResultsChanged(self.path, "truncated" if own.st_size < self._size else "changed")

    def verify(self) -> None:
        """Wait until all of it is on the disk, and read it again.

        Raises:
            ResultsChanged: as `check`, or not all records are there that this process has found or written.
        """
        self.sync()
        self.check()
        try:
            is_whole = {result.key for result in self.lines()} == self.errors.keys()
        except (ValueError, FileNotFoundError):
            is_whole = False
        if not is_whole:
            raise ResultsChanged(self.path, "changed")

    def sync(self) -> None:
        """Wait until all of it is on the disk."""
        os.fsync(self._file.fileno())

    def remove(self) -> None:
        """Delete the file."""
        Path(os.path.realpath(self.path)).unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let other processes write it. A file without a record is not left behind."""
        if not self._file.closed:
            with suppress(OSError):
                own = os.fstat(self._file.fileno())
                if own.st_size == 0 and os.path.samestat(own, os.stat(self.path)):
                    self.remove()
        self._file.close()

    def _put(self, content: bytes) -> None:
        """Write all of it where the last record ends."""
        written = os.pwrite(self._file.fileno(), content, self._end)
        while written < len(content):  # says why it could not be written at once
            written += os.pwrite(self._file.fileno(), content[written:], self._end + written)

    def _note(self, result: Result) -> None:
        self.errors[result.key] = result.error is not None
        if result.finish_reason == "length":
            self.cut.add(result.key)
        self.runs.setdefault(result.run, result)

    def _repair(self) -> bytes:
        """Read the records, and mend the end; returns what was cut off behind them."""
        layout, broken = self._layout, b""
        with open(self.path, "rb") as file:
            start = file.read(max(_START_BYTES, len(layout.opening)))
            refuse_legacy(self.path, layout, start)
            if not start.startswith(layout.opening) and not layout.opening.startswith(start):
                raise self._refusal(1)
            is_begun = start.startswith(layout.opening)
            position = file.seek(len(layout.opening) if is_begun else len(start))
            broken = b"" if is_begun else start
            first = 1 + layout.opening.count(b"\n")
            is_closed = is_parted = False
            for number, chunk in layout.chunks(file):
                position += len(chunk)
                if layout.is_closing(chunk) and not broken:
                    is_closed = True
                    continue
                if broken or is_parted:
                    raise self._refusal(first + number - 2)
                record = layout.record(chunk)
                try:
                    if is_closed or not (layout.is_delimited or chunk.endswith(b"\n")):
                        raise ValueError
                    self._note(layout.decode(record))
                except ValueError:
                    # What does not begin as ours was hardly written by us, unless it stands behind such.
                    is_own = chunk.startswith(layout.beginning) or layout.beginning.startswith(chunk)
                    if not (self.errors or is_own):
                        raise self._refusal(first + number - 1) from None
                    broken = chunk
                else:
                    self._end = position - len(chunk) + len(record)
                    is_parted = not chunk[len(record) :].startswith(layout.between)
        closing = layout.closing if self._end else b""
        self._size = self._end + len(closing)
        self._file.seek(self._end)
        if self._file.read() != closing:
            self._put(closing)
            os.ftruncate(self._file.fileno(), self._size)
        return broken

    def _refusal(self, number: int) -> ValueError:
        return ValueError(
            f"{self.path}, line {number} is not a result of this command; remove it, or write to another file"
        )


class ResultsStream(ResultsFile):
    """Results on standard output, a line of JSON each: none was there before, and none can be read again."""

    def __init__(self) -> None:
        """Nothing is opened."""
        self.path = STDOUT
        self.errors, self.cut, self.runs, self.is_locked, self.repaired = {}, set(), {}, False, b""

    def write(self, result: Result) -> None:
        """Print a line. Raises BrokenPipeError if nobody reads it any more."""
        sys.stdout.flush()
        sys.stdout.buffer.write(result.line())
        sys.stdout.buffer.flush()
        self._note(result)

    def lines(self) -> Iterator[Result]:
        """None."""
        return iter(())

    def drop_errors(self, keys: Container[bytes]) -> int:
        """There are none."""
        return 0

    def check(self) -> None:
        """Nothing can happen to it."""

    verify = sync = remove = close = check


def _opened(path: Path) -> IO[bytes]:
    """A file to read and write, made if it is not there."""
    return open(path, "r+b", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_CREAT, 0o666))


def _lock(file: IO[bytes], path: Path) -> bool:
    """Let no other process write it until it is closed, or this process dies; False if there are no locks here."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BeingWritten(path) from None
    except OSError:
        return False
    try:
        is_there = os.path.samestat(os.fstat(file.fileno()), os.stat(file.name))
    except FileNotFoundError:
        is_there = False
    if not is_there:  # it was replaced or removed between being opened and being locked
        raise BeingWritten(path)
    return True


class BeingWritten(ValueError):
    """Another process has a results file open."""

    def __init__(self, path: Path):
        super().__init__(f"another process is writing {path}; wait for it to end, or name another file")


class ResultsChanged(OSError):
    """Another program has done something to a results file while it was written."""

    def __init__(self, path: Path, what: str):
        super().__init__(
            f"{path} was {what} by another program while it was being written, so results are missing from it; run "
            "the same command again to do them once more"
        )
