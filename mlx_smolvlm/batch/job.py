"""A list of pictures -> their lines in the results file, by one process or several."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ..batching import BatchAnswer, BatchRequest, generate_batch
from ..command_line import one_line
from ..generation_arguments import with_system_prompt
from ..generation_options import GenerationOptions
from ..media.options import MediaOptions
from ..model import SmolVLM
from ..processing import Processor
from ..session_file import model_fingerprint
from .inputs import Item
from .ranks import Ranks
from .results import Result, ResultsFile, parse_line, read_results

_DIGITS = 12  # of a digest


@dataclass(frozen=True)
class Question:
    """What is asked about every picture, and how."""

    prompt: str
    system: str | None
    options: GenerationOptions
    media_options: MediaOptions

    def about(self, item: Item) -> str:
        """The question about one picture."""
        return self.prompt if item.prompt is None else item.prompt

    def request(self, item: Item) -> BatchRequest:
        """What the model is asked about one picture."""
        images, videos = ([], [item.source]) if item.is_video else ([item.source], [])
        return BatchRequest(
            with_system_prompt(self.about(item), self.system, len(images), len(videos)), images, videos
        )

    @property
    def digest(self) -> str:
        """Differs between options; the prompt is in every line, so it is left out."""
        options = [self.system, asdict(self.options), asdict(self.media_options)]
        return _digest(json.dumps(options, sort_keys=True).encode())


class Job:
    """The pictures that are still to do, the results file, and the other processes that share both.

    A process alone appends to the results file. Of several, each appends to a file of its own beside it, `OUT.rankN`,
    which may be on another machine's disk; at the end the first one puts all lines into its results file. Lines that
    a run before this one has left in such files count as done.

    Attributes:
        notes: what was found and mended, for people.
        num_items: pictures of the input.
        num_done: those of them that had a line before.
        todo: those that this process is to do.
    """

    def __init__(self, items: list[Item], question: Question, out: Path, ranks: Ranks, retry_errors: bool):
        """Open the results.

        Raises:
            ValueError: another process writes them, or they are no results of this command.
            OSError: they cannot be read or written.
        """
        self.notes: list[str] = []
        self.num_items = len(items)
        self.num_done = 0
        self.todo: list[Item] = []
        self._items = {(item.path, question.about(item)): item for item in items}
        self._question = question
        self._ranks = ranks
        self._out = out
        with ExitStack() as files:
            self._main = files.enter_context(ResultsFile(out)) if ranks.rank == 0 else None
            own = out if ranks.size == 1 else _rank_file(out, ranks.rank)
            self._own = self._main if self._main and ranks.size == 1 else files.enter_context(ResultsFile(own))
            self._left = [path for path in _rank_files(out) if path != own]  # by runs of several processes
            for file in {self._main, self._own} - {None}:
                self._mend(file, retry_errors)
            in_main = self._main.results if self._main else read_results(out)
            self._in_main = {result.key for result in in_main}
            found = [*in_main, *([] if self._own is self._main else self._own.results)]
            found += [result for path in self._left for result in read_results(path)]
            self._found = [result for result in found if result.error is None or not retry_errors]
            self._made: list[Result] = []
            self._files = files.pop_all()

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def begin(self, model_name: str, model: SmolVLM) -> None:
        """Find out what is still to do, and what of it is for this process.

        Raises:
            ValueError: the results are of another model, prompt or other options; or the processes do not agree on
                what there is to do.
            OSError: another process has ended.
        """
        self._model_name = model_name
        self._run = f"{model_fingerprint(model)[:_DIGITS]}-{self._question.digest}"
        for result in self._found:
            self._refuse_others(result)
        done = {result.key for result in self._found}
        own = {
            "pictures": self.num_items,
            "inputs": _digest(json.dumps(list(self._items)).encode()),
            "models and options": self._run,
            "done": [number for number, key in enumerate(self._items) if key in done],
        }
        all_done: set[int] = set()
        for other in map(json.loads, self._ranks.share(json.dumps(own).encode())):
            for what in ("pictures", "inputs", "models and options"):
                if other[what] != own[what]:
                    raise ValueError(
                        f"the processes have different {what} ({own[what]} and {other[what]}); every machine needs the "
                        "same files at the same paths, the same model and the same command"
                    )
            all_done.update(other["done"])
        missing = [item for number, item in enumerate(self._items.values()) if number not in all_done]
        self.num_done = len(all_done)
        self.todo = missing[self._ranks.rank :: self._ranks.size]

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
            self._own.write(result)
            self._made.append(result)
            yield result

    def finish(self) -> None:
        """Bring the lines of all processes together. Raises OSError if that cannot be written, or a process has ended."""
        apart = [*self._found, *([] if self._own is self._main else self._made)]
        lines = b"".join(result.line() for result in apart if result.key not in self._in_main)
        for result in map(parse_line, b"".join(self._ranks.share(lines)).splitlines()):
            if self._main and result.key not in self._in_main:
                self._main.write(result)
                self._in_main.add(result.key)
        self._ranks.share(b"")  # from here on, what the others wrote is in the results file too
        for path in self._left if self._own is self._main else [*self._left, self._own.path]:
            path.unlink(missing_ok=True)

    def _mend(self, file: ResultsFile, retry_errors: bool) -> None:
        if file.repaired:
            self.notes.append(
                f"{file.path} ended with a line that was not written whole; it is cut off, and its picture done again"
            )
        failed = [result for result in file.results if result.error is not None]
        if retry_errors and failed:
            file.keep([result for result in file.results if result.error is None])
            self.notes.append(f"{len(failed)} pictures of {file.path} that had an error are tried again")

    def _refuse_others(self, result: Result) -> None:
        """Results that this run cannot continue."""
        advice = "name another file, or remove this one"
        if result.prompt not in {prompt for _, prompt in self._items}:
            raise ValueError(f"{self._out} answers another prompt, {result.prompt[:200]!r}; {advice}")
        model, options = result.run.split("-")
        if model != self._run.split("-")[0]:
            raise ValueError(
                f"{self._out} holds answers of another model, {result.model}, or of other types of numbers (dtype); "
                f"this is {self._model_name}; {advice}"
            )
        if options != self._run.split("-")[1]:
            raise ValueError(
                f"{self._out} was made with other options (system prompt, sampling, form of the answer, reading of "
                f"pictures); {advice}"
            )

    def _result(self, item: Item, answer: BatchAnswer) -> Result:
        return Result(
            path=item.path,
            prompt=self._question.about(item),
            text=None if answer.error else answer.text,
            error=one_line(answer.error) if answer.error else None,
            finish_reason=answer.finish_reason,
            prompt_tokens=answer.prompt_tokens,
            image_tokens=answer.image_tokens,
            completion_tokens=answer.completion_tokens,
            seconds=round(answer.seconds, 3),
            model=self._model_name,
            run=self._run,
        )


def _rank_file(out: Path, rank: int) -> Path:
    return out.with_name(f"{out.name}.rank{rank}")


def _rank_files(out: Path) -> list[Path]:
    """Those that there are beside a results file."""
    number = re.compile(rf"{re.escape(out.name)}\.rank\d+")
    return sorted(path for path in out.absolute().parent.iterdir() if number.fullmatch(path.name))


def _digest(data: bytes) -> str:
    return blake2b(data).hexdigest()[:_DIGITS]
