"""Answers that are made together, a token of each in every step."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from ..model.caches.batch import BatchCache
from ..model.caches.kv_cache import KVCache
from ..model.smolvlm import SmolVLM
from ..processor.processor import Processor
from ..processor.prompt import Inputs
from .decoding import logits_after
from .generation_options import GenerationOptions
from .row_sampling import RowSampler
from .structured import GrammarConstraint
from .text_stream import TextStream


@dataclass(frozen=True)
class PreparedPrompt:
    """A prompt with all its pixels, and the form that its answer keeps to.

    Attributes:
        index: which of all prompts.
        inputs: its tokens and pixels.
        budget: most tokens of the answer.
        constraint: follows the answer; None if it is free.
    """

    index: int
    inputs: Inputs
    budget: int
    constraint: GrammarConstraint | None


@dataclass
class Row:
    """A prompt that is being answered; `started` as `time.perf_counter` has it, `finish_reason` None until the end."""

    prompt: PreparedPrompt
    started: float
    text_stream: TextStream
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None

    def take(self, token_id: int, stop_token_ids: frozenset[int]) -> None:
        """Note a token."""
        constraint = self.prompt.constraint
        self.token_ids.append(token_id)
        self.text += self.text_stream.add(token_id)
        if constraint is not None and constraint.is_complete:
            self.finish_reason = "length" if constraint.is_cut else "stop"
        elif token_id in stop_token_ids or self.text_stream.stopped:
            self.finish_reason = "stop"
        elif len(self.token_ids) == self.prompt.budget:
            self.finish_reason = "length"
        if self.finish_reason is not None:
            self.text += self.text_stream.flush()


class Rows:
    """The answers in work, what the model has read of each, and the logits after it."""

    def __init__(
        self,
        model: SmolVLM,
        processor: Processor,
        options: GenerationOptions,
        batch_size: int,
        max_cache_bytes: int,
    ):
        """See `generate_batch`."""
        self._model = model
        self._processor = processor
        self._options = options
        self._batch_size = batch_size
        self._max_cache_bytes = max_cache_bytes
        self._cache = BatchCache(model.config.text, model.language_model.norm.weight.itemsize)
        self._sampler = RowSampler(options.sampling, model.config.text.vocab_size)
        self._rows: dict[int, Row] = {}  # by their row of the cache
        self._logits = mx.zeros((0, model.config.text.vocab_size))

    def __len__(self) -> int:
        return len(self._rows)

    def make_room(self, prompt: PreparedPrompt, others: Sequence[PreparedPrompt] = ()) -> bool:
        """Have an empty row for a prompt and one for each of some others that are about to begin.

        False if that would not keep within the bounds, though all became as long as the longest may.
        """
        prompts = [prompt, *others, *(row.prompt for row in self._rows.values())]
        longest = max(len(one.inputs.input_ids) + one.budget for one in prompts)
        most = max(1, min(self._batch_size, self._max_cache_bytes // self._cache.bytes_per_row(longest)))
        if len(prompts) > most:
            return False
        if not len(prompts) <= self._cache.num_rows <= most:
            self._arrange(min(2 * len(prompts), most))
        return True

    def give_back_room(self, is_last: bool) -> None:
        """Let go of rows that are not used, which cost as much as others; of all such rows, if no prompt follows."""
        used, num_rows = len(self._rows), self._cache.num_rows
        if is_last and used < num_rows and 2 * used <= num_rows:
            self._arrange(used)
        elif 0 < 4 * used <= num_rows:  # not at once: the next prompt may be here soon
            self._arrange(2 * used)

    def begin(self, prompt: PreparedPrompt, layers: list[KVCache], logits: mx.array, started: float) -> None:
        """Begin to answer a prompt that has been read into `layers`, with (1, vocab_size) logits, in an empty row."""
        number = next(number for number in range(self._cache.num_rows) if number not in self._rows)
        self._cache.put(number, layers)
        self._logits[number] = logits[0]
        self._sampler.begin(number, prompt.inputs.input_ids)
        mx.eval(self._logits, self._sampler.state)  # another thread may ask for the next answer
        text_stream = TextStream(self._processor, list(self._options.stop), self._options.skip_special_tokens)
        self._rows[number] = Row(prompt, started, text_stream)

    def step(self) -> list[Row]:
        """Choose a token for each row, and read them. Returns those that have ended, which are no longer here."""
        rows = self._rows
        constraints = {
            number: row.prompt.constraint for number, row in rows.items() if row.prompt.constraint is not None
        }
        allowed = {number: constraint.allowed() for number, constraint in constraints.items()}
        chosen = self._sampler(self._logits, sorted(rows), allowed)
        mx.async_eval(chosen)
        goes_on = any(len(row.token_ids) + 1 < row.prompt.budget for row in rows.values())
        if goes_on:
            self._cache.begin_step()
            following = logits_after(self._model, chosen[None], self._cache.layers)[0]  # built while the device works
        token_ids: list[int] = chosen.tolist()  # type: ignore[assignment]
        taken = list(token_ids)
        for number, constraint in constraints.items():
            taken[number] = constraint.take(token_ids[number])
        if goes_on:
            if taken != token_ids:  # what was built would be for nothing; it writes where this writes, too
                following = logits_after(self._model, mx.array([taken]), self._cache.layers)[0]
            mx.async_eval(following)  # not before the step before it has ended, see `decoding.py`
            self._logits = following
        for number, row in rows.items():
            row.take(taken[number], self._processor.stop_token_ids)
        ended = [row for row in rows.values() if row.finish_reason is not None]
        self._rows = {number: row for number, row in rows.items() if row.finish_reason is None}
        self._cache.end_step(sorted(self._rows))
        return ended

    def _arrange(self, num_rows: int) -> None:
        """Let the cache have so many rows, those in use first."""
        used = sorted(self._rows)
        self._cache.arrange(used, num_rows)
        self._sampler.arrange(used, num_rows)
        empty = mx.zeros((num_rows - len(used), self._logits.shape[1]), self._logits.dtype)
        self._logits = mx.concatenate([self._logits[mx.array(used, mx.int32)], empty])
        mx.eval(self._logits, self._sampler.state)
        self._rows = {number: self._rows[row] for number, row in enumerate(used)}
