"""The results file: a line of JSON for each picture, each written whole, none lost and none made twice."""

import fcntl
import json
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO


@dataclass(frozen=True)
class Result:
    """One line.

    Attributes:
        path: of the picture or video, as the input names it.
        prompt: what was asked.
        text: the answer; None if there is an error.
        error: why there is no answer; None if there is one.
        finish_reason: "stop" or "length"; None if there is an error.
        prompt_tokens, image_tokens, completion_tokens: as `generate --json` counts them.
        seconds: from the model's first work on the picture to the last token; pictures of one batch share them.
        model: what the model was called.
        run: tells models, as they are in memory, and options from others: MODEL-OPTIONS, in hexadecimal.
    """

    path: str
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
    def key(self) -> tuple[str, str]:
        """What is not done twice: a picture with a question."""
        return self.path, self.prompt

    def line(self) -> bytes:
        """As it stands in the file."""
        record = asdict(self)
        try:
            return (json.dumps(record, ensure_ascii=False) + "\n").encode()
        except UnicodeEncodeError:  # a file name that is not UTF-8
            return (json.dumps(record) + "\n").encode()


def parse_line(line: bytes) -> Result:
    """The inverse of `Result.line`. Raises ValueError if it is not a result."""
    try:
        result = Result(**json.loads(line))
        if not (isinstance(result.path, str) and isinstance(result.prompt, str) and result.run.count("-") == 1):
            raise ValueError
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ValueError("not a result of this command") from None
    return result


def read_results(path: Path) -> list[Result]:
    """The lines of a file that another process may be writing; none if there is no file."""
    if not path.is_file():
        return []
    results = []
    for line in path.read_bytes().split(b"\n")[:-1]:  # behind the last line break, nothing or half a line
        with suppress(ValueError):  # the process that writes it will see to it
            results.append(parse_line(line))
    return results


class ResultsFile:
    """A results file that is being written, by this process alone.

    Attributes:
        path: the file.
        results: the lines that it had when it was opened.
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
        self._file: IO[bytes] = open(path, "a+b", buffering=0)  # noqa: SIM115 - closed by `close`
        try:
            _lock(self._file, path)
            self.results, self.repaired = self._read()
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

    def close(self) -> None:
        """Let other processes write it."""
        self._file.close()

    def keep(self, results: list[Result]) -> None:
        """Have these lines and no others: the file is replaced as a whole."""
        descriptor, name = tempfile.mkstemp(prefix=f".{self.path.name}.", suffix=".partial", dir=self.path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(result.line() for result in results)
                file.flush()
                os.fsync(file.fileno())
            new: IO[bytes] = open(name, "a+b", buffering=0)  # noqa: SIM115 - closed by `close`
            _lock(new, self.path)
            os.replace(name, self.path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(name)
            raise
        self._file.close()
        self._file, self.results = new, results

    def _read(self) -> tuple[list[Result], bytes]:
        """The lines, and what was cut off behind them."""
        self._file.seek(0)
        content = self._file.read()
        *lines, last = content.split(b"\n")
        if not last and lines:
            last = lines.pop()
        results = []
        for number, line in enumerate(lines, 1):
            try:
                results.append(parse_line(line))
            except ValueError as error:
                raise ValueError(f"{self.path}, line {number} is {error}; remove it, or write to another file") from None
        if not last:
            return results, b""
        try:
            results.append(parse_line(last))
        except ValueError:
            self._file.truncate(sum(len(line) + 1 for line in lines))
            return results, last
        if not content.endswith(b"\n"):
            self._file.write(b"\n")
        return results, b""


def _lock(file: IO[bytes], path: Path) -> None:
    """Let no other process write it until it is closed, or this process dies."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"another process is writing {path}; wait for it to end, or name another file") from None
    except OSError:
        pass  # a file system without locks
