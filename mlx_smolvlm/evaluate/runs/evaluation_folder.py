"""The folder of a run: what was asked of whom, and a line for each row that is done, in the order of the data.

`run.json` says what the run depends on. `results.jsonl` grows line by line and has nothing that differs from one run to
the next; `timings.jsonl` has the seconds.
"""

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import IO, Any

from ...files import whole_file, write_json
from ...options import quoted

RUN, RESULTS, TIMINGS = "run.json", "results.jsonl", "timings.jsonl"
PLACES = "places.json"
SUMMARY, REPORT = "summary.json", "report.html"
MADE_DATA = "mini-suite"  # a folder in it that is made before the run is
FORMAT = "mlx-smolvlm evaluation 1"
_BLOCK = 1024**2
_COMPARED = {"dataset", "index", "row", "category", "prompt", "token_ids", "answer", "expected", "score"}
Result = dict[str, Any]


class EvaluationFolder:
    """The folder of a run, for one process at a time.

    Attributes:
        path: the folder.
        done: how many rows have a line.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], keys: Sequence[tuple[str, str]]):
        """Open it, or make it.

        Args:
            path: the folder; it need not be there.
            settings: what answers and scores depend on; a run goes on only with the same.
            keys: the keys of the rows, in order.

        Raises:
            FileExistsError: a folder that holds something else.
            ValueError: a run with other settings or rows, or one that another process goes on with.
        """
        self.path = path
        found = read_run(path, is_new_allowed=True)
        path.mkdir(parents=True, exist_ok=True)
        self._results = _opened(path / RESULTS)
        try:
            _lock(self._results, path)
            if found is None:
                with whole_file(path / RUN) as file:
                    write_json(file, {"format": FORMAT, **settings})
            else:
                _check_same(found, settings, path)
            self.done = self._mend(keys)
            self._timings = _opened(path / TIMINGS)
            with open(path / TIMINGS, "rb") as file:
                end = sum(map(len, islice(file, self.done)))
            self._timings.seek(end)
            self._timings.truncate()
        except BaseException:
            self._results.close()
            raise

    def __enter__(self) -> "EvaluationFolder":
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._results, self._timings):
            file.flush()
            os.fsync(file.fileno())
            file.close()

    def add(self, result: Result, timing: Result) -> None:
        """The next row's line."""
        for file, record in ((self._results, result), (self._timings, timing)):
            left = _line(record)
            try:
                while left:  # the system may take less than all of it
                    left = left[file.write(left) :]
            except OSError as error:  # of a write, it does not name the file
                raise OSError(error.errno, error.strerror, file.name) from None
        self.done += 1

    def note_places(self, paths: Sequence[Path], image_root: Path | None) -> None:
        """Note where the data lie, for pages with their images; that is no part of what a run depends on."""
        places = {"data": [str(path.absolute()) for path in paths]}
        root = None if image_root is None else str(image_root.expanduser().absolute())
        with whole_file(self.path / PLACES) as file:
            write_json(file, {**places, "image_root": root})

    def _mend(self, keys: Sequence[tuple[str, str]]) -> int:
        """Count the lines, and cut off half a line at the end."""
        position = number = 0
        with open(self.path / RESULTS, "rb") as file:
            for line in file:
                try:
                    result = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    result = None
                if not isinstance(result, dict):
                    break
                key = (str(result.get("dataset")), str(result.get("index")))
                if number >= len(keys) or key != keys[number]:
                    raise ValueError(
                        f"{self.path / RESULTS}, line {number + 1} is of the row {key[1]} of {key[0]}, which has "
                        "another place in the data; name another folder by --out"
                    )
                position += len(line)
                number += 1
        self._results.seek(position)
        self._results.truncate()
        return number


def read_run(path: Path, *, is_new_allowed: bool = False) -> dict[str, Any] | None:
    """What a run depends on; None for a folder that is not there, or empty.

    Raises:
        FileNotFoundError: no run, where one is expected.
        FileExistsError: a folder that holds something else.
    """
    settings = path / RUN
    if settings.is_file():
        try:
            found = json.loads(settings.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if isinstance(found, dict) and found.get("format") == FORMAT:
            return found
    elif not path.exists() or (path.is_dir() and not any(map(_is_of_others, path.iterdir()))):
        if is_new_allowed:
            return None
        raise FileNotFoundError(f"{path} is no run; expected a folder that evaluate --out has made")
    if not is_new_allowed:
        raise FileNotFoundError(f"{path} is no run of this version; expected a folder that evaluate --out has made")
    raise FileExistsError(f"{path} holds something else than a run of this version; name another folder by --out")


def _is_of_others(child: Path) -> bool:
    """Whether a file is there that a run without its RUN has not; one that was killed at its beginning left these."""
    is_own = child.name == MADE_DATA or child.name.startswith(".")
    return not (is_own or (child.name == RESULTS and child.is_file() and not child.stat().st_size))


def read_results(path: Path) -> list[Result]:
    """The lines of a run. Raises ValueError for a damaged one."""
    results = []
    with open(path / RESULTS, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                result = json.loads(line)
            except ValueError:
                result = None
            if not isinstance(result, dict) or not result.keys() >= _COMPARED or not _is_score(result["score"]):
                raise ValueError(f"{path / RESULTS}, line {number} is damaged; run the evaluation again to mend it")
            results.append(result)
    return results


def _is_score(value: Any) -> bool:
    return value is None or type(value) in (bool, int, float)


def file_digest(path: Path) -> str:
    """Equal for equal files."""
    digest = sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _check_same(found: Mapping[str, Any], settings: Mapping[str, Any], path: Path) -> None:
    if found.get("fingerprint") != settings["fingerprint"]:
        raise ValueError(
            f"{path} holds a run of another model ({quoted(found.get('model'))}); this one is "
            f"{quoted(settings['model'])}, name another folder by --out"
        )
    for name, value in settings.items():
        if name == "model":  # the same one may be called otherwise
            continue
        if name not in found or json.loads(json.dumps(value)) != found[name]:
            raise ValueError(
                f"{path} holds a run with {name} {quoted(found.get(name))}, and this one has {quoted(value)}; "
                "name another folder by --out"
            )


def _opened(path: Path) -> IO[bytes]:
    """A file of the run, made if it is not there. A link might lead to another program's, and a pipe never ends."""
    if os.path.lexists(path) and not (path.is_file() and not path.is_symlink()):
        raise FileExistsError(f"{path} is no plain file; move it away, or name another folder by --out")
    return open(path, "r+b", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_CREAT, 0o666))


def _lock(file: IO[bytes], path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"another process goes on with the run in {path}; wait for it to end") from None
    except OSError:  # no locks on this disk
        return


def _line(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
