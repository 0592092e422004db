"""One answer while it is made: its text, grammar, budget, log probabilities, and why it ends.

`decoding.py` makes one answer, `rows.py` many at a time; what an answer is, is the same for both.
"""

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from ..model.smolvlm import SmolVLM
from ..options import KV_GROUP_SIZES, GenerationOptions
from ..processor.processor import Processor
from .sampling import Sampler, log_probabilities
from .structured import make_constraint, read_grammar
from .text_stream import TextStream


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
        """What chooses its tokens, after a prompt."""
        return Sampler(self.options, prompt_ids, self._vocab_size)

    def allowed(self) -> mx.array | None:
        """Which tokens may come next, (1, vocab_size) bool; None if all may."""
        return None if self.constraint is None else self.constraint.allowed()

    def accept(self, token_id: int) -> int:
        """The token that is taken where this one was chosen: another one if the grammar would not end in time."""
        return token_id if self.constraint is None else self.constraint.take(token_id)

    def log_probabilities(self, logits: mx.array) -> mx.array | None:
        """What `take` reports from, (num_rows, vocab_size); None if nobody asks. Evaluate it with the token."""
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
        """Text that was held back, where an answer ends before its time."""
        return self._text.flush()
