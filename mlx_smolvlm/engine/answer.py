"""One answer while it is made: its text, grammar, budget, log probabilities, and why it ends.

`decoding.py` makes one answer, `rows.py` many at a time; what an answer is, is the same for both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event

import mlx.core as mx
import numpy as np
from tokenizers.decoders import DecodeStream

from ..model.forking import refuse_forked_process
from ..model.smolvlm import SmolVLM
from ..options import KV_GROUP_SIZES, GenerationOptions
from ..processor.processor import Processor
from .sampling import Sampler, log_probabilities
from .structured import GrammarConstraint, make_constraint, read_grammar


class Cancelled(Exception):
    """A cancel event was set between two units of work."""


def cancel_check(*events: Event | None) -> Callable[[], None]:
    """A function that raises `Cancelled` once one of the events is set. Raises TypeError for what is no event."""
    watched = [event for event in events if event is not None]
    for event in watched:
        if not hasattr(event, "is_set"):
            raise TypeError(f"cancel is {type(event).__name__}, expected a threading.Event or None")

    def check() -> None:
        for event in watched:
            if event.is_set():
                raise Cancelled

    return check


@dataclass(frozen=True)
class AnswerStep:
    """What one token adds to an answer.

    Attributes:
        token_id: the token; None where an answer was cancelled.
        text: what it makes certain; empty while a character or a stop string is incomplete.
        finish_reason: None while going on; then "stop" (an end token or stop string, or structured output that is
            complete) or "length".
        logprob: natural logarithm of the token's probability; None unless `GenerationOptions.logprobs` asks for it.
        top_logprobs: (token, logarithm) of the likeliest tokens, likeliest first; None unless asked for.
    """

    token_id: int | None
    text: str
    finish_reason: str | None
    logprob: float | None = None
    top_logprobs: list[tuple[int, float]] | None = None


def check_pair(model: SmolVLM, processor: Processor) -> None:
    """Refuse what cannot answer: anything but a model with its processor, in a process that may use MLX.

    Raises:
        TypeError: other objects, None or swapped ones.
        RuntimeError: a forked process, where MLX would hang.
    """
    expected = "pass both that load() returns: model, processor = load(...)"
    if isinstance(model, Processor) and isinstance(processor, SmolVLM):
        raise TypeError(f"model and processor are swapped; {expected}")
    # Told by what they can do, so that programs may wrap them.
    parts = (("model", model, "SmolVLM", "language_model"), ("processor", processor, "Processor", "prepare"))
    for name, value, kind, part in parts:
        if not hasattr(value, part):
            given = "None" if value is None else type(value).__name__
            raise TypeError(f"{name} is {given}, expected a {kind}; {expected}")
    refuse_forked_process()


def check_options(model: SmolVLM, options: GenerationOptions) -> None:
    """Refuse what only a model or llguidance can judge, before anything is read.

    Raises:
        ValueError: a group size that the model's heads cannot take, or a schema or expression that cannot be enforced.
        ImportError: a schema or expression without llguidance.
    """
    head_dim = model.config.text.head_dim
    if options.kv_bits is not None and head_dim % options.kv_group_size:
        fitting = [size for size in KV_GROUP_SIZES if head_dim % size == 0]
        advice = f"use {' or '.join(map(str, fitting))}" if fitting else "leave out kv_bits"
        raise ValueError(
            f"kv_group_size {options.kv_group_size} does not divide this model's head_dim, {head_dim}; {advice}"
        )
    if options.is_structured:
        read_grammar(options)


class Answer:
    """One answer.

    Attributes:
        options: how it is made.
        token_ids: its tokens so far, the end token included.
        finish_reason: as in `AnswerStep`.
        budget: most tokens that it may have: `max_tokens`, or what is left of the context.
        constraint: follows its grammar; None if it is free.
    """

    def __init__(self, model: SmolVLM, processor: Processor, options: GenerationOptions, num_prompt_tokens: int):
        """
        Raises:
            ValueError: no answer within the budget follows the grammar.
        """
        self.options = options
        self.token_ids: list[int] = []
        self.finish_reason: str | None = None
        self.budget = min(options.max_tokens, processor.config.context_length - num_prompt_tokens)
        self._vocab_size = model.config.text.vocab_size
        self.constraint: GrammarConstraint | None = None
        if options.is_structured:
            self.constraint = make_constraint(options, processor, self._vocab_size, self.budget)
        self._stop_token_ids = processor.stop_token_ids
        self._text = TextStream(
            processor,
            list(options.stop),
            options.skip_special_tokens,
            keeps_first_space=options.continue_final_message,
        )

    @property
    def left(self) -> int:
        """Tokens that may still come."""
        return self.budget - len(self.token_ids)

    def sampler(self, prompt_ids: list[int]) -> Sampler:
        """A sampler for its tokens, after a prompt."""
        return Sampler(self.options, prompt_ids, self._vocab_size)

    def allowed(self) -> mx.array | None:
        """Which tokens may come next, (1, vocab_size) bool; None if all may."""
        return None if self.constraint is None else self.constraint.allowed()

    def accept(self, token_id: int) -> int:
        """The token that is taken where this one was chosen: another one if the grammar would not end in time."""
        return token_id if self.constraint is None else self.constraint.take(token_id)

    def log_probabilities(self, logits: mx.array) -> mx.array | None:
        """Log probabilities for `take`, (num_rows, vocab_size); None if not asked for. Evaluate them with the token."""
        return None if self.options.logprobs is None else log_probabilities(logits)

    def take(self, token_id: int, logprobs: np.ndarray | None = None) -> AnswerStep:
        """Add an accepted token.

        Args:
            token_id: the token.
            logprobs: log probabilities of all tokens in its place, (vocab_size,); None if they were not asked for.
        """
        self.token_ids.append(token_id)
        text = self._text.add(token_id)
        if self.constraint is not None and self.constraint.is_complete:
            self.finish_reason = "length" if self.constraint.is_cut else "stop"
        elif token_id in self._stop_token_ids or self._text.stopped:
            self.finish_reason = "stop"
        elif not self.left:
            self.finish_reason = "length"
        if self.finish_reason is not None:
            text += self._text.flush()
        if logprobs is None or self.options.logprobs is None:
            return AnswerStep(token_id, text, self.finish_reason)
        likeliest = np.argsort(-logprobs, kind="stable")[: self.options.logprobs]
        top = [(int(token), float(logprobs[token])) for token in likeliest]
        return AnswerStep(token_id, text, self.finish_reason, float(logprobs[token_id]), top)

    def flush(self) -> str:
        """Text that was held back, where an answer ends early."""
        return self._text.flush()


class TextStream:
    """One answer's text.

    Characters of several tokens come out whole; text that may be the beginning of a stop string is held back.
    `stopped` is set when a stop string has come: the text ends before it. Special tokens count for stop strings, as
    they are spelled, even where they are left out of the text.
    """

    def __init__(
        self, processor: Processor, stop: list[str], skip_special_tokens: bool, *, keeps_first_space: bool = False
    ):
        """
        Args:
            processor: decodes the tokens.
            stop: strings that end the text.
            skip_special_tokens: leave special tokens out of the text.
            keeps_first_space: a space at the beginning is part of the text, which goes on in the middle of a message;
                otherwise it is what separates an answer from the prompt.
        """
        self._processor = processor
        self._decoder = DecodeStream(skip_special_tokens=skip_special_tokens)
        self._skip_special_tokens = skip_special_tokens
        self._stop = stop
        self._hidden_tokens = processor.special_tokens if stop and skip_special_tokens else {}
        self._ids: list[int] = []
        self._decoded = ""  # all that is certain, special tokens included where stop strings are searched for
        self._hidden: list[tuple[int, int]] = []  # parts of it that are not text: (start, end), in order
        self._num_text = 0  # characters of it that are text
        self._keeps_first_space = keeps_first_space
        self._is_begun = keeps_first_space
        self._given = 0  # characters of it that were handed out or left out
        self.stopped = False

    def add(self, token_id: int) -> str:
        """The text that this token makes certain."""
        if token_id in self._hidden_tokens:
            self._extend(self._hidden_tokens[token_id], is_text=False)
        if token_id in self._processor.stop_token_ids and self._skip_special_tokens:
            return ""
        self._ids.append(token_id)
        self._extend(self._decoder.step(self._processor.tokenizer, token_id) or "")
        held = 0 if self.stopped else self._possible_stop_length()
        return self._hand_out(len(self._decoded) - held)

    def flush(self) -> str:
        """What was held back: the beginning of a stop string that did not come, bytes of a broken character."""
        if not self.stopped:
            whole = self._processor.decode(self._ids, skip_special_tokens=self._skip_special_tokens)
            whole = whole if self._keeps_first_space else whole.removeprefix(" ")
            self._extend(whole[self._num_text :])
        return self._hand_out(len(self._decoded))

    def _extend(self, text: str, is_text: bool = True) -> None:
        if self.stopped or not text:
            return
        before = len(self._decoded)
        if not is_text:
            self._hidden.append((before, before + len(text)))
        elif not self._is_begun:
            self._is_begun = True
            if text.startswith(" ") and before:  # no part of the text, but of a stop string that began before it
                self._hidden.append((before, before + 1))
                self._num_text -= 1
            else:
                text = text.removeprefix(" ")
        self._decoded += text
        self._num_text += len(text) if is_text else 0
        search_from = max(0, before - max(map(len, self._stop), default=0))
        found = [place for string in self._stop if (place := self._decoded.find(string, search_from)) >= 0]
        if found:
            self._decoded = self._decoded[: min(found)]
            self.stopped = True

    def _possible_stop_length(self) -> int:
        """Characters at the end that begin a stop string."""
        lengths = [
            length
            for string in self._stop
            for length in range(1, min(len(string), len(self._decoded) + 1))
            if self._decoded.endswith(string[:length])
        ]
        return max(lengths, default=0)

    def _hand_out(self, end: int) -> str:
        parts, start = [], self._given
        for hidden_start, hidden_end in self._hidden:
            if hidden_start >= end:
                break
            parts.append(self._decoded[start:hidden_start])
            start = max(start, hidden_end)
        parts.append(self._decoded[start:end])
        self._given = max(self._given, end)
        return "".join(parts)
