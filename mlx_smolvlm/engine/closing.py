"""The way to the end of structured output: few tokens that close what is open."""

import re
import string
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_OUTSIDE = '}],:0123456789ntf.-"[{'  # what ends soonest comes first; n, t and f begin null, true and false
_WITHIN = '"0123456789'  # digits, which Unicode escapes ask for
_MAX_STATES = 500  # followed in search of another
_MAX_ALIKE = 8  # of them, that look alike by what may come next
_MAX_ENDINGS = 16  # characters of the grammar, from its end, that are tried as what ends the answer
_MAX_ENDING_TOKENS = 1000  # on the way there


@dataclass(frozen=True)
class Place:
    """The state at the end of unfinished JSON text: within a string or not, after a backslash or not."""

    in_string: bool = False
    escaped: bool = False

    def after(self, text: bytes) -> "Place":
        """The place that more text leads to."""
        in_string, escaped = self.in_string, self.escaped
        for byte in text:
            if escaped:
                escaped = False
            elif byte == ord('"'):
                in_string = not in_string
            else:
                escaped = in_string and byte == ord("\\")
        return Place(in_string, escaped)


class Closer:
    """Finds tokens that complete an answer from where an llguidance matcher stands.

    First the obvious way: outside of strings close what is open and take the shortest values, within one end it.
    Where that does not get to the end, the same with a character that the grammar names whenever it may come: that ends
    "some characters, then a full stop". Then breadth-first search over the words and characters that the grammar names,
    and other characters. What is found need not be the shortest.
    """

    def __init__(self, tokenizer: Any, grammar: str):
        """`tokenizer`: an llguidance.LLTokenizer; `grammar`: the source that the matchers were made from."""
        self._tokenizer = tokenizer
        self._outside, self._within = ([self._tokens(c)[0] for c in order] for order in (_OUTSIDE, _WITHIN))
        words = [*re.findall(r"[\w ]+", grammar), *re.findall(r"\w+", grammar)]
        pieces = dict.fromkeys([*words, *grammar, *string.printable])
        endings = [tokens for character in dict.fromkeys(reversed(grammar)) if (tokens := self._tokens(character))]
        self._endings = [tokens[0] for tokens in endings[:_MAX_ENDINGS] if len(tokens) == 1]
        self._pieces = [tokens for piece in pieces if (tokens := self._tokens(piece))]

    def closing(self, matcher: Any, place: Place, max_tokens: int) -> list[int] | None:
        """Tokens that complete the answer, at most `max_tokens`; None if no such are found.

        Args:
            matcher: an llguidance.LLMatcher; it is left as it is.
            place: where in JSON the answer so far ends.
            max_tokens: tokens that are left.
        """
        if matcher.is_accepting():
            return []
        found = self._greedy(matcher.deep_copy(), place, max_tokens)
        if found is not None:
            return found
        for ending in self._endings:
            found = self._greedy(matcher.deep_copy(), place, min(max_tokens, _MAX_ENDING_TOKENS), [ending])
            if found is not None:
                return found
        return self._search(matcher, place, max_tokens)

    def _greedy(self, matcher: Any, place: Place, max_tokens: int, endings: Sequence[int] = ()) -> list[int] | None:
        tokens: list[int] = []
        while not matcher.is_accepting():
            forced = matcher.compute_ff_bytes()
            step = self._tokens(forced.decode()) if _is_text(forced) else []
            if not step:
                allowed = _allowed(matcher)
                wanted = [*endings, *(self._within if place.in_string else self._outside)]
                step = [next((token for token in wanted if allowed[token]), int(np.argmax(allowed)))]  # or any
            if len(tokens) + len(step) > max_tokens or not matcher.consume_tokens(step):
                return None
            tokens += step
            place = place.after(self._tokenizer.decode_bytes(step))
        return tokens

    def _search(self, matcher: Any, place: Place, max_tokens: int) -> list[int] | None:
        """Breadth first. Few states are followed of those that look alike: the same characters may come next."""
        waiting: deque[tuple[Any, Place, list[int]]] = deque([(matcher, place, [])])
        alike: Counter[tuple[bytes, Place]] = Counter()
        for _ in range(_MAX_STATES):
            if not waiting:
                return None
            state, place, tokens = waiting.popleft()
            pieces = [piece for piece in self._pieces if state.validate_tokens(piece) == len(piece)]
            for piece in pieces or [[int(np.argmax(_allowed(state)))]]:  # as within a character of several bytes
                after = state.deep_copy()
                after.consume_tokens(piece)
                longer = [*tokens, *piece]
                if after.is_accepting() and len(longer) <= max_tokens:
                    return longer
                look = (after.compute_bitmask(), place.after(self._tokenizer.decode_bytes(piece)))
                alike[look] += 1
                if alike[look] <= _MAX_ALIKE:
                    waiting.append((after, look[1], longer))
        return None

    def _tokens(self, text: str) -> list[int]:
        return list(self._tokenizer.greedy_tokenize(text))


def completes(matcher: Any, tokens: list[int]) -> bool:
    """Whether an answer is complete after more tokens."""
    if matcher.validate_tokens(tokens) < len(tokens):
        return False
    after = matcher.deep_copy()
    return bool(after.consume_tokens(tokens) and after.is_accepting())


def _allowed(matcher: Any) -> np.ndarray:
    """(at least vocab_size,) 0 or 1."""
    return np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")


def _is_text(forced: bytes) -> bool:
    """Whether bytes are whole characters."""
    try:
        return bool(forced.decode())
    except UnicodeDecodeError:
        return False
