"""The folder of a run beside its output: what a run needs to go on after it was stopped or killed.

`OUT.training` holds the options and data that the run began with, its newest state, and its metrics. Every file appears
whole or not at all, so a run can be killed at any moment. The folder is locked while a process trains, and removed once
the output is there.
"""

import fcntl
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlx.core as mx
from safetensors import SafetensorError

from ..files import remove_remains, whole_file, write_json
from ..model.json_fields import read_json
from ..options import quoted
from .recipe import flag

RECORD = "training.json"
_STATE = "state.safetensors"
_METRICS = "metrics.jsonl"
_REPORT = "report.html"
_BEST = "best.safetensors"
FEATURES = "features"
_OWN = (RECORD, _STATE, _METRICS, _REPORT, _BEST, FEATURES)
Record = Mapping[str, Any]


class RunFolder:
    """The folder of one run; within its `with` block no other process can have it.

    Attributes:
        path: the folder.
        out: the output that it belongs to.
    """

    def __init__(self, out: Path):
        self.out = out
        self.path = out.with_name(f"{out.name}.training")
        self._lock: int | None = None

    def __enter__(self) -> "RunFolder":
        if os.path.lexists(self.path) and not self.path.is_dir():
            raise FileExistsError(
                f"{self.path} is where the run would keep its state, but it is no folder; remove it, or choose another "
                "--adapter-out"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            self._lock = None
            raise ValueError(
                f"another process is training into {self.out}; wait for it, or choose another folder"
            ) from None
        try:
            self._refuse_foreign()
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
        if self.path.is_dir() and not any(self.path.iterdir()):
            with suppress(OSError):  # a link to a folder elsewhere stays
                self.path.rmdir()

    def _refuse_foreign(self) -> None:
        """Raise FileExistsError if the folder holds what no run has put there, which might be written over."""
        names = {path.name for path in self.path.iterdir() if not _is_by_the_way(path.name)}
        foreign = sorted(names - set(_OWN)) or (sorted(names) if names and RECORD not in names else [])
        if foreign:
            raise FileExistsError(
                f"{self.path} is where the run would keep its state, but it holds {quoted(foreign[0])}, which is of no "
                "run; remove it, or choose another --adapter-out"
            )

    @property
    def metrics(self) -> Path:
        """A line of JSON for each step."""
        return self.path / _METRICS

    @property
    def report(self) -> Path:
        """The page about the run, so far."""
        return self.path / _REPORT

    @property
    def has_state(self) -> bool:
        """Whether there is something to go on from."""
        return (self.path / _STATE).is_file()

    def begin(self, record: Record) -> None:
        """Start a run of these options and data. What an earlier one left before its first state is removed."""
        with whole_file(self.path / RECORD) as file:  # first, as by it the folder is known to be a run's
            write_json(file, record)
        for name in (_METRICS, _REPORT, _BEST):
            (self.path / name).unlink(missing_ok=True)

    def check_same(self, record: Record) -> None:
        """Refuse to go on with other options or data. Raises ValueError, which names the first that differs."""
        refuse_changes(read_json(self.path / RECORD), record, self.out)

    def save(self, step: int, arrays: Mapping[str, mx.array]) -> None:
        """Keep a state, in place of the one before.

        Raises:
            OSError: the disk is full, or cannot be written; the state before is still there.
        """
        with whole_file(self.path / _STATE) as file:
            save_arrays(file, arrays, {"step": str(step)})

    def load(self) -> tuple[int, dict[str, mx.array]]:
        """The newest state: steps done, and arrays. Raises ValueError if the file is damaged."""
        file = self.path / _STATE
        remove_remains(file)
        try:
            loaded: Any = mx.load(str(file), return_metadata=True)
            arrays, metadata = loaded
            return int(metadata["step"]), dict(arrays)
        except (RuntimeError, KeyError, ValueError) as error:
            raise ValueError(f"{file} is damaged ({error}); remove {self.path} and begin anew") from None

    def save_best(self, step: int, arrays: Mapping[str, mx.array]) -> None:
        """Keep the parameters after the step that validation found best. Raises OSError if they cannot be written."""
        with whole_file(self.path / _BEST) as file:
            save_arrays(file, arrays, {"step": str(step)})

    def load_best(self, step: int) -> dict[str, mx.array]:
        """The parameters after the best step. Raises ValueError if the file is missing, damaged, or of another step."""
        file = self.path / _BEST
        try:
            found: Any = mx.load(str(file), return_metadata=True)
            if int(found[1]["step"]) == step:
                return dict(found[0])
        except (RuntimeError, KeyError, ValueError):
            pass
        raise ValueError(f"{file} is missing or damaged; remove {self.path} and begin anew")

    def remove(self) -> None:
        """The output is there: nothing of this is needed any more. The record goes last, by which this is a run's."""
        for path in sorted(self.path.iterdir(), key=lambda path: path.name == RECORD):
            if path.name not in _OWN and not _is_by_the_way(path.name):  # what somebody has put there meanwhile stays
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()


def _is_by_the_way(name: str) -> bool:
    """Whether macOS or a killed process may have left this, see `files.py` and `metrics_log.py`."""
    return name == ".DS_Store" or any(name.startswith(f".{own}.partial.") or name == f"{own}.partial" for own in _OWN)


def refuse_changes(began: Record, record: Record, out: Path) -> None:
    """Refuse to go on with what `record` says where a run began with something else.

    Raises:
        ValueError: the first option that differs, with both values.
    """
    for name in record:
        before, now = began.get(name), record[name]
        if name == "options" and isinstance(before, dict):
            for option in now:
                if before.get(option) != now[option]:
                    is_now, was = _compared(option, now[option], before.get(option))
                    raise ValueError(
                        f"--resume: {is_now}, but the run in {out} began {was}; give the same options, or train into "
                        "another folder"
                    )
        elif before != now and name in ("data", "model", "init_adapter"):
            what = {
                "data": "rows, images, or how they are read",
                "model": "the base model",
                "init_adapter": "--init-adapter",
            }
            raise ValueError(
                f"--resume: {what[name]} changed since the run in {out} began; undo that, or train into another folder"
            )


def _compared(option: str, now: Any, before: Any) -> tuple[str, str]:
    """What an option is, and what a run began with, in words."""
    if option == "processes":
        return f"there are {now} processes of mlx.launch", f"with {before}"
    if isinstance(now, bool):
        is_given = now != (option == "shuffle")  # whose flag is --no-shuffle
        return f"{flag(option)} is {'given' if is_given else 'missing'}", "without it" if is_given else "with it"
    return (
        f"{flag(option)} is missing" if now is None else f"{flag(option)} is {quoted(now)}",
        "without it" if before is None else f"with {quoted(before)}",
    )


def save_arrays(file: Path, arrays: Mapping[str, mx.array], metadata: dict[str, str]) -> None:
    """Write a safetensors file. Raises OSError if it cannot be written."""
    contiguous = {name: mx.contiguous(arrays[name]) for name in sorted(arrays)}
    try:
        mx.save_safetensors(str(file), contiguous, metadata)
    except (SafetensorError, RuntimeError) as error:
        raise OSError(f"{file} could not be written: {error}") from None
