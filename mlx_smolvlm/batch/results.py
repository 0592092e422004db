"""The results file: a line of JSON for each image, each written whole, none lost and none written twice."""

import fcntl
import json
import os
from collections.abc import Container, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO

from ..files import whole_file

_BEGINNING = b'{"path": '  # of every line


@dataclass(frozen=True)
class Result:
    """One line.

    Attributes:
        path: of the image or video, as the input names it.
        source: the same in full, where `path` counts from the folder of a list; else None.
        prompt: what was asked.
        text: the answer; None if there is an error.
        error: why there is no answer; None if there is one.
        finish_reason: "stop" or "length"; None if there is an error.
        prompt_tokens, image_tokens, completion_tokens: as `generate --json` counts them.
        seconds: from the model's first work on the image to the last token; images of one batch share them.
        model: what the model was called.
        run: tells models as they are in memory, options and prompts from others: MODEL-OPTIONS-PROMPT.
    """

    path: str
    source: str | None
    prompt: str
    text: str | None
    error: str | None
    finish_reason: str | None
    prompt_tokens: int
    image_tokens: int
    completion_tokens: int
    seconds: float
    model: str
    run: str

    @property
    def key(self) -> bytes:
        """Identifies an image with a question, which is not done twice."""
        return key_of(self.source or self.path, self.prompt)

    def line(self) -> bytes:
        """As it stands in the file."""
        record = asdict(self)
        try:
            return (json.dumps(record, ensure_ascii=False) + "\n").encode()
        except UnicodeEncodeError:  # a file name that is not UTF-8
            return (json.dumps(record) + "\n").encode()


def key_of(source: str, prompt: str) -> bytes:
    """Identifies an image with a question; results are remembered by it, since texts would fill the memory."""
    return blake2b(f"{source}\0{prompt}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def parse_line(line: bytes) -> Result:
    """The inverse of `Result.line`. Raises ValueError if it is not a result."""
    try:
        result = Result(**json.loads(line))
        if not (isinstance(result.path, str) and isinstance(result.prompt, str) and result.run.count("-") == 2):
            raise ValueError
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ValueError("not a result of this command") from None
    return result


class ResultsFile:
    """A results file that is being written, by this process alone.

    Attributes:
        path: the file.
        is_locked: False where the file system knows no locks.
        errors: for each line, by `Result.key`, whether it has an error.
        runs: one line for each `Result.run` there is.
        repaired: what was left of a line that had not been written whole, if anything; it has been cut off.
    """

    def __init__(self, path: Path):
        """Open the file, or make it.

        Raises:
            ValueError: another process is writing it, or a line, unless it is the last one, is not a result.
            OSError: it cannot be read and written.
        """
        self.path = path
        if path.exists() and not path.is_file():
            raise ValueError(f"{path} is not a file that results can be kept in; name another one")
        if not path.absolute().parent.is_dir():
            raise FileNotFoundError(f"no folder {path.parent} to write {path.name} in; make it first")
        self.errors: dict[bytes, bool] = {}
        self.runs: dict[str, Result] = {}
        self._file: IO[bytes] = open(path, "a+b", buffering=0)  # noqa: SIM115 - closed by `close`
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
        """Append a line, whole or not at all. Raises OSError if the disk is full or gone."""
        line = result.line()
        end = self._file.seek(0, os.SEEK_END)
        try:
            written = self._file.write(line)
            if written != len(line):
                self._file.write(line[written:])  # says why it could not be written at once
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(end)
            raise OSError(
                f"{self.path} cannot be written: {error.strerror}. What it holds is kept; make room and run the same "
                "command again"
            ) from None
        self._note(result)

    def merge(self, other: Result) -> None:
        """Append a line that another file holds, unless it is here."""
        if other.key not in self.errors:
            self.write(other)

    def lines(self) -> Iterator[Result]:
        """The results in the file, one by one."""
        with open(self.path, "rb") as file:
            yield from map(parse_line, file)

    def drop_errors(self, keys: Container[bytes]) -> int:
        """Forget the lines with errors whose `Result.key` is among `keys`; returns how many.

        The file is replaced as a whole, where it lies if `path` is a link to it.
        """
        dropped = {key for key, is_error in self.errors.items() if is_error and key in keys}
        if not dropped:
            return 0
        with ExitStack() as on_failure:
            with whole_file(self.path) as path:
                new = on_failure.enter_context(open(path, "a+b", buffering=0))
                _lock(new, self.path)  # before others can see it
                with open(path, "ab") as file:
                    file.writelines(result.line() for result in self.lines() if result.key not in dropped)
            on_failure.pop_all()  # closed by `close`
        self._file.close()
        self._file = new
        self.errors = {key: is_error for key, is_error in self.errors.items() if key not in dropped}
        return len(dropped)

    def sync(self) -> None:
        """Wait until all of it is on the disk."""
        os.fsync(self._file.fileno())

    def remove(self) -> None:
        """Delete the file."""
        Path(os.path.realpath(self.path)).unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let other processes write it. A file without a line is not left behind."""
        if not self._file.closed:
            with suppress(OSError):
                if os.fstat(self._file.fileno()).st_size == 0:
                    self.remove()
        self._file.close()

    def _note(self, result: Result) -> None:
        self.errors[result.key] = result.error is not None
        self.runs.setdefault(result.run, result)

    def _repair(self) -> bytes:
        """Read the lines; returns what was cut off behind them."""
        end, broken = 0, b""
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, 1):
                if broken:
                    raise self._refusal(number - 1)
                try:
                    self._note(parse_line(line))
                except ValueError:
                    # What does not begin as our lines do was hardly written by us, unless it stands behind such.
                    if not (self.errors or line.startswith(_BEGINNING) or _BEGINNING.startswith(line)):
                        raise self._refusal(number) from None
                    broken = line
                else:
                    end += len(line)
                    is_ended = line.endswith(b"\n")
        if broken:
            self._file.truncate(end)
        elif end and not is_ended:
            self._file.write(b"\n")
        return broken

    def _refusal(self, number: int) -> ValueError:
        return ValueError(
            f"{self.path}, line {number} is not a result of this command; remove it, or write to another file"
        )


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
