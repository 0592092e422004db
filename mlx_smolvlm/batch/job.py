"""A list of images -> their lines in the results file, by one process or several."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..api.batching import BatchAnswer, generate_batch
from ..api.session_file import model_fingerprint
from ..command_line.runner import one_line
from ..model.smolvlm import SmolVLM
from ..processor.processor import Processor
from .items import Item, is_or_are, plural
from .question import Question, digest
from .ranks import PATIENCE_S, Ranks
from .record import Result, parse_line
from .result_files import rank_file, rank_files
from .results import STDOUT, BeingWritten, ResultsFile, ResultsStream

if TYPE_CHECKING:
    from .sidecars import Sidecars

_MERGED_BYTES = 1024**2  # lines that each process sends to the others at a time
_POLL_S = 0.2  # between two looks at whether another process is still writing


class Job:
    """The images that are still to do, the results, and the other processes that share both.

    The first process (alone, the only one) writes the results file. Every other one writes a file of its own beside
    it, `OUT.rankN`, which may be on another machine's disk. At the end the first one takes over all their lines.

    On one disk it needs nobody's help for that: a file is free as soon as the process that wrote it has ended, whether
    it was done or died. From other machines the lines come through `mx.distributed`. Where that fails, files stay; the
    next run takes over those that it finds, whatever its number of processes, and their lines count as done.

    Attributes:
        notes: what was found and mended, for people.
        num_done: images of the input that had a line before.
        num_missing: those that had none, for all processes together.
        todo: those of them that this process is to do.
    """

    def __init__(
        self,
        items: list[Item],
        question: Question,
        out: Path,
        ranks: Ranks,
        retry_errors: bool,
        sidecars: "Sidecars | None" = None,
    ):
        """Open the results.

        Raises:
            ValueError: another process writes them, or they are no results of this command, of another prompt or of
                other options.
            OSError: they cannot be read or written.
        """
        self.notes: list[str] = []
        self.num_done = self.num_missing = 0
        self.todo: list[Item] = []
        self._items = {question.key(item): item for item in items}
        if len(self._items) < len(items):
            doubled = len(items) - len(self._items)
            self.notes.append(f"{plural(doubled, 'image')} {is_or_are(doubled)} listed twice; each is done once")
        self._question = question
        self._ranks = ranks
        self._out = out
        self._retry_errors = retry_errors
        self._sidecars = sidecars
        self._model_name = self._fingerprint = ""  # until `begin`
        self._is_one_disk = self._is_begun = False
        if out == STDOUT and ranks.size > 1:
            raise ValueError("--out - is for one process; several share their results by a file, so name one")
        self._file: ResultsFile = (
            ResultsStream() if out == STDOUT else ResultsFile(out if ranks.rank == 0 else rank_file(out, ranks.rank))
        )
        try:
            self._check(self._file)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def path(self) -> Path:
        """The file that this process writes."""
        return self._file.path

    @property
    def num_items(self) -> int:
        """Images of the input."""
        return len(self._items)

    @property
    def num_errors(self) -> int:
        """Lines with errors that the results file has for images of the input."""
        return sum(self._file.errors.get(key, False) for key in self._items)

    @property
    def num_cut(self) -> int:
        """Lines with an answer that is cut, which the results file has for images of the input."""
        return len(self._file.cut & self._items.keys())

    @property
    def num_lines(self) -> int:
        """Lines that the results file has for images of the input."""
        return sum(key in self._file.errors for key in self._items)

    def begin(self, model_name: str, model: SmolVLM) -> None:
        """Find out what is still to do, and what of it is for this process.

        Raises:
            ValueError: the results are of another model; or the processes do not agree on what there is to do.
            OSError: another process has ended.
        """
        self._model_name, self._fingerprint = model_name, model_fingerprint(model)
        self._check(self._file)
        if self._retry_errors and (dropped := self._file.drop_errors(self._items)):
            self.notes.append(
                f"{plural(dropped, 'image')} of {self._file.path} that had an error {is_or_are(dropped)} tried again"
            )
        self._agree()  # after which every process has opened its file
        for path in rank_files(self._out):
            # In place of a living process, none but itself: file systems of several machines may know no locks.
            if self._ranks.rank == 0 and path not in self._others():
                self._take_over(path)
        beside = [path for path in self._others() if _is_being_written(path)] if self._ranks.rank == 0 else []
        self._is_one_disk = self._ranks.share(b"1" if len(beside) == self._ranks.size - 1 else b"0")[0] == b"1"
        done = np.array([key in self._file.errors for key in self._items], bool)
        for other in self._ranks.share(np.packbits(done).tobytes()):
            done |= np.unpackbits(np.frombuffer(other, np.uint8))[: len(done)].astype(bool)
        missing = [item for item, is_done in zip(self._items.values(), done, strict=True) if not is_done]
        self._is_begun = True
        self.num_done, self.num_missing = int(done.sum()), len(missing)
        self.todo = missing[self._ranks.rank :: self._ranks.size]
        others = len(self._file.errors.keys() - self._items.keys())
        if others:
            stay = "it stays" if others == 1 else "they stay"
            self.notes.append(f"{self._file.path} has {plural(others, 'line')} about what is not in the input; {stay}")

    def results(self, model: SmolVLM, processor: Processor, **batch_options: Any) -> Iterator[Result]:
        """Do what is to do; each result is in the file before it is yielded.

        `batch_options` are those of `generate_batch` that do not change answers. Raises what it raises, and OSError if
        the file cannot be written.
        """
        answers = generate_batch(
            model,
            processor,
            map(self._question.request, self.todo),
            options=self._question.options,
            media_options=self._question.media_options,
            **batch_options,
        )
        for answer in answers:
            result = self._result(self.todo[answer.index], answer)
            self._file.write(result)
            if self._sidecars is not None:
                self._sidecars.write(result)
            yield result

    def check(self) -> None:
        """Raise ResultsChanged if another program has done something to the file that this process writes."""
        self._file.check()

    def finish(self, seconds: float) -> None:
        """Bring the lines of all processes together, in the results file of the first one.

        Args:
            seconds: that this process has worked, by which it is judged how long others may take.

        Raises:
            OSError: that cannot be written, another program has changed it, or a process has ended before its work
                was done.
        """
        is_first = self._ranks.rank == 0
        self._file.verify()
        if self._ranks.size > 1 and not self._is_one_disk:
            self._exchange(max(PATIENCE_S, 3 * seconds))
        elif is_first:
            for path in self._others():
                while _is_being_written(path):
                    time.sleep(_POLL_S)
                self._take_over(path)
        self._file.sync()
        if is_first and self._ranks.size > 1:
            self._file.verify()  # what the others have done, too
        if is_first and self._sidecars is not None:  # of earlier runs and of other processes, too
            for result in self._file.lines():
                if result.key in self._items:
                    self._sidecars.write(result)
        if is_first and self.num_lines < self.num_items:
            raise OSError(
                f"another process has ended before its images were done; {self.num_lines} of {self.num_items} have "
                "lines: run the same command again, with any number of processes, to do the rest"
            )

    def _others(self) -> list[Path]:
        """The files of the other processes, where they are on this disk."""
        return [rank_file(self._out, rank) for rank in range(1, self._ranks.size)]

    def _exchange(self, patience_s: float) -> None:
        """Let the first process have all lines, and the others remove their files then."""
        is_first = self._ranks.rank == 0
        for lines in self._ranks.gather(() if is_first else _chunks(self._file), patience_s):
            for line in lines.splitlines() if is_first else ():
                self._file.merge(parse_line(line))
        self._file.sync()
        self._ranks.share(b"", patience_s)  # from here on, what the others wrote is in the results file, too
        if not is_first:
            self._file.remove()

    def _agree(self) -> None:
        """Raise ValueError if the processes have not the same to do."""
        own = {
            "numbers of images": self.num_items,
            "inputs": digest(b"".join(self._items).hex()),
            "models or options": self._question.run(self._fingerprint, Item("", "", False)),
        }
        for other in map(json.loads, self._ranks.share(json.dumps(own).encode())):
            for what, value in own.items():
                if other[what] != value:
                    raise ValueError(
                        f"the processes have different {what} ({value} and {other[what]}); every machine needs the "
                        "same files at the same paths, the same model and the same command"
                    )

    def _take_over(self, path: Path) -> None:
        """Have the lines of a file whose process is gone. Raises ValueError if it is not, or if they do not go here."""
        if path.exists():
            with ResultsFile(path) as left:
                self._check(left)
                for result in left.lines():
                    is_retried = self._retry_errors and not self._is_begun and result.key in self._items
                    if result.error is None or not is_retried:
                        self._file.merge(result)
                self._file.sync()
                left.remove()

    def _check(self, file: ResultsFile) -> None:
        """Refuse results that this run cannot continue; say what was mended."""
        if file.repaired:
            self.notes.append(
                f"{file.path} ended with a line that was not written whole ({len(file.repaired)} bytes); it is cut "
                "off, and its image done again"
            )
            file.repaired = b""
        for result in file.runs.values():
            self._question.check(file.path, result)
            if self._fingerprint:
                self._question.check_model(file.path, result, self._model_name, self._fingerprint)

    def _result(self, item: Item, answer: BatchAnswer) -> Result:
        return Result(
            path=item.path,
            source=None if item.source == item.path else item.source,
            prompt=self._question.about(item),
            text=None if answer.error else answer.text,
            error=one_line(answer.error) if answer.error else None,
            finish_reason=answer.finish_reason,
            prompt_tokens=answer.prompt_tokens,
            image_tokens=answer.image_tokens,
            completion_tokens=answer.completion_tokens,
            seconds=round(answer.seconds, 3),
            model=self._model_name,
            run=self._question.run(self._fingerprint, item),
        )


def _is_being_written(path: Path) -> bool:
    """Whether a living process has this file open for its results."""
    try:
        if path.exists():
            with ResultsFile(path):
                pass
    except BeingWritten:
        return True
    return False


def _chunks(file: ResultsFile) -> Iterator[bytes]:
    """The lines of a file, some at a time."""
    lines = bytearray()
    for result in file.lines():
        lines += result.line()
        if len(lines) >= _MERGED_BYTES:
            yield bytes(lines)
            lines.clear()
    yield bytes(lines)
