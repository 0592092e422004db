"""Structured output: a JSON schema or a regular expression says which tokens may come next.

llguidance computes which those are; it is the extra `json`, imported when asked for.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import mlx.core as mx
import numpy as np

from ..media.urls import printable
from ..options import GenerationOptions, quoted
from ..processor.processor import Processor
from .closing import Closer, Place, completes
from .json_schema import schema_text

MAX_SCHEMA_CHARS = 256 * 1024  # as JSON text; time grows with the square of what follows
MAX_SCHEMA_OBJECTS = 1500  # objects within a schema: one for each property and each alternative
MAX_REGEX_CHARS = 8192
_MESSAGE_CHARS = 500

# One way to write JSON: that of json.dumps. Free white space invites small models to make nothing else.
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def read_grammar(options: GenerationOptions) -> str | None:
    """llguidance's grammar of an answer, None if it is free. A schema is parsed once, however often it is asked for.

    The answer may begin with a space, as the models' answers do; it is no part of the text.

    Raises:
        ValueError: a schema or expression that is malformed or has features that cannot be enforced.
        ImportError: llguidance is not installed.
    """
    if options.regex is not None:
        _check_regex(options.regex)
        with _one_line("the regex"):
            return _regex_grammar(options.regex)
    if options.json_schema is not None:
        schema = _bounded_schema(options.json_schema)
        with _one_line("the JSON schema"):
            return _schema_grammar(schema)
    return None


@lru_cache(maxsize=64)
def _regex_grammar(regex: str) -> str:
    guidance = _llguidance()
    _refuse(guidance.LLMatcher.grammar_from_regex(regex), f"regex {quoted(regex)}")
    return _answer_grammar(f"/{guidance.regex_to_lark(regex, use_ascii='')}/")


@lru_cache(maxsize=64)
def _schema_grammar(schema: str) -> str:
    _refuse(_llguidance().LLMatcher.grammar_from_json_schema(schema), "the JSON schema")
    laid_out = json.dumps(json.loads(schema) | {"x-guidance": _LAYOUT}, ensure_ascii=False)
    return _answer_grammar(f"%json {laid_out}")


def _answer_grammar(answer: str) -> str:
    grammar: str = _llguidance().LLMatcher.grammar_from_lark(f"start: / ?/ answer\nanswer: {answer}")
    return grammar


class GrammarConstraint:
    """Follows one answer: which tokens may come next, and how to end it within the token budget.

    At every step the answer can be closed within the tokens that are left; a token after which it could not is
    replaced by the next one of the way to the end that is known.

    Attributes:
        is_complete: nothing can be added.
        is_cut: the answer was closed because its tokens ran out.
    """

    def __init__(self, processor: Processor, vocab_size: int, grammar: str, max_tokens: int):
        """
        Raises:
            ValueError: no answer as short as `max_tokens` is found.
        """
        self._tokenizer = _tokenizer(processor, vocab_size)
        self._matcher = _llguidance().LLMatcher(self._tokenizer, grammar, log_level=0)
        self._closer = Closer(self._tokenizer, grammar)
        self._place = Place()
        self._vocab_size = vocab_size
        self._end = min(processor.stop_token_ids)
        self._left = max_tokens
        self.is_complete = self.is_cut = False
        closing = self._closer.closing(self._matcher, self._place, max_tokens)
        if closing is None:
            raise ValueError(
                f"no answer that follows the schema or regex was found within {max_tokens} tokens; raise max_tokens, "
                "or shorten the prompt if the context ends there"
            )
        self._closing: list[int] = closing

    def allowed(self) -> mx.array:
        """Which tokens may come next, (1, vocab_size) bool."""
        if self.is_cut:
            return mx.arange(self._vocab_size)[None] == self._closing[0]
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        return mx.array(np.unpackbits(bits, bitorder="little")[: self._vocab_size].astype(bool))[None]

    def take(self, token_id: int) -> int:
        """Note the token that was chosen; returns it, or another one that has to come instead."""
        self._left -= 1
        if not self.is_cut:
            after = self._matcher.deep_copy()
            after.consume_token(token_id)
            place = self._place.after(self._tokenizer.decode_bytes([token_id]))
            closing = self._closing_after(after, place)
            if closing is not None:
                self._matcher, self._place, self._closing = after, place, closing
                self.is_complete = after.is_stopped()
                return token_id
            self.is_cut = True
        token_id = self._closing.pop(0) if self._closing else self._end  # which is all that a complete answer needs
        self.is_complete = not self._closing
        return token_id

    def _closing_after(self, matcher: Any, place: Place) -> list[int] | None:
        """Tokens that complete the answer from here on; those known so far, while there is room for twice as many."""
        if matcher.is_stopped():
            return []
        guesses = [guess for guess in (self._closing[1:], self._closing) if completes(matcher, guess)]
        if guesses and 2 * len(guesses[0]) <= self._left:
            return guesses[0]
        closing = self._closer.closing(matcher, place, self._left)
        if closing is None:
            closing = next((guess for guess in guesses if len(guess) <= self._left), None)
        return closing


def make_constraint(
    options: GenerationOptions, processor: Processor, vocab_size: int, max_tokens: int
) -> GrammarConstraint | None:
    """The constraint of an answer; None if it is free. Raises what `read_grammar` and the class raise."""
    grammar = read_grammar(options)
    if grammar is None:
        return None
    with _one_line("the schema or regex"):
        return GrammarConstraint(processor, vocab_size, grammar, max_tokens)


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Turn what llguidance raises into a short ValueError: also panics, which are no `Exception`."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, ImportError):
        raise
    except BaseException as error:
        if isinstance(error, ValueError) and len(str(error)) <= _MESSAGE_CHARS:
            raise
        reason = printable(" ".join(str(error).split()), 300)
        raise ValueError(f"{what} cannot be enforced: {reason}") from None


def _llguidance() -> Any:
    try:
        import llguidance  # an extra
    except ImportError:
        raise ImportError(
            "json_schema and regex need llguidance; install it with: pip install llguidance (the extra 'json')"
        ) from None
    return llguidance


@lru_cache(maxsize=2)
def _tokenizer(processor: Processor, vocab_size: int) -> Any:
    """The processor's tokenizer as llguidance has it, which takes long to make."""
    return _llguidance().LLTokenizer(
        processor.tokenizer.to_str(), n_vocab=vocab_size, eos_token=sorted(processor.stop_token_ids)
    )


def _bounded_schema(json_schema: Mapping[str, Any] | str) -> str:
    """A schema as JSON text. Raises ValueError for one that is none, or too large to be enforced in time."""
    if isinstance(json_schema, str):
        _check_length(json_schema)
    elif isinstance(json_schema, Mapping):
        _check_objects(json_schema)
    text = schema_text(json_schema)
    _check_length(text)
    _check_objects(json.loads(text))
    return text


def _check_length(schema: str) -> None:
    if len(schema) > MAX_SCHEMA_CHARS:
        raise ValueError(f"the JSON schema has {len(schema)} characters, the limit is {MAX_SCHEMA_CHARS}; shorten it")


def _check_objects(schema: Any) -> None:
    """Refuse a schema of too many parts; also one whose parts are shared, which is as large when it is written out."""
    num_objects, num_parts, left = 0, 0, [schema]
    while left:
        part = left.pop()
        num_parts += 1
        if isinstance(part, Mapping):
            num_objects += 1
            if isinstance(part.get("pattern"), str):
                _check_regex(part["pattern"])
        if num_objects > MAX_SCHEMA_OBJECTS or num_parts + len(left) > MAX_SCHEMA_CHARS:
            raise ValueError(
                f"the JSON schema has more than {MAX_SCHEMA_OBJECTS} objects within, one for each property and "
                "alternative; split it"
            )
        if isinstance(part, Mapping):
            left.extend(part.values())
        elif isinstance(part, list | tuple):
            left.extend(part)


def _check_regex(regex: str) -> None:
    if len(regex) > MAX_REGEX_CHARS:
        raise ValueError(f"regex has {len(regex)} characters, the limit is {MAX_REGEX_CHARS}; shorten it")


def _refuse(grammar: str, what: str) -> None:
    problem = _llguidance().LLMatcher.validate_grammar(grammar)
    if problem:
        raise ValueError(f"{what} cannot be enforced: {printable(' '.join(problem.split()), 300)}")
