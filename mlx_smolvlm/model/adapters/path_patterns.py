"""Regular expressions of adapters, matched in bounded time.

Python's `re` may take for ever on an expression such as `(a+)+$`. Here all ways through an expression are followed at
once, as sets of places in the text, and each step is counted. Understood is what names of layers need: characters,
classes, groups, alternatives, repetitions and the two ends; the rest is refused.
"""

import re
from collections.abc import Callable

MAX_PATTERN_CHARS = 1000
MAX_STEPS = 200_000  # for one text
MAX_STEPS_IN_ALL = 5_000_000  # for all that are compared as a whole
_MAX_DEPTH = 50  # of groups within groups
_MAX_REPEATS = 1000

Ends = Callable[[str, set[int]], set[int]]
"""A text and the places at which a part of an expression may begin -> those at which it may end."""

_ONE_CHARACTER = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]|\\[dDwWsS]|\\[^a-zA-Z0-9]|[^\\^$*+?{}()\[\]|]", re.DOTALL)
_REPEAT = re.compile(r"[*+?]|\{\d+(?:,\d*)?\}")


class PathPattern:
    """A regular expression that is compared with whole names."""

    def __init__(self, pattern: str):
        """
        Raises:
            ValueError: the expression is too long, malformed, or of a kind that is not understood.
        """
        if len(pattern) > MAX_PATTERN_CHARS:
            raise ValueError(f"it has {len(pattern)} characters, the limit is {MAX_PATTERN_CHARS}")
        self._pattern, self._at, self._depth, self._steps = pattern, 0, 0, 0
        self._spent = 0
        self._ends = self._alternatives()
        if self._at < len(pattern):
            raise ValueError(f"{pattern[self._at]!r} at {self._at} has no counterpart")

    def matches(self, text: str) -> bool:
        """Whether the whole text matches. Raises ValueError if it takes too many steps, or did so for all texts."""
        if self._spent > MAX_STEPS_IN_ALL:
            raise ValueError(f"it has taken more than {MAX_STEPS_IN_ALL} steps; write it more simply")
        self._steps = 0
        found = len(text) in self._ends(text, {0})
        self._spent += self._steps
        return found

    def matches_end(self, text: str) -> bool:
        """Whether the whole text matches, or what follows one of its dots.

        Raises:
            ValueError: it takes too many steps.
        """
        self._steps = 0
        starts = {0} | {place + 1 for place, character in enumerate(text) if character == "."}
        return len(text) in self._ends(text, starts)

    def _count(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise ValueError(f"it takes more than {MAX_STEPS} steps; write it more simply")

    def _alternatives(self) -> Ends:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ValueError(f"its groups are nested more than {_MAX_DEPTH} deep")
        choices = [self._sequence()]
        while self._pattern[self._at : self._at + 1] == "|":
            self._at += 1
            choices.append(self._sequence())
        self._depth -= 1

        def ends(text: str, starts: set[int]) -> set[int]:
            return set().union(*(choice(text, starts) for choice in choices))

        return choices[0] if len(choices) == 1 else ends

    def _sequence(self) -> Ends:
        parts = []
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            parts.append(self._repeated(self._part()))

        def ends(text: str, starts: set[int]) -> set[int]:
            for part in parts:
                self._count(1 + len(starts))
                starts = part(text, starts) if starts else starts
            return starts

        return ends

    def _part(self) -> Ends:
        pattern, at = self._pattern, self._at
        if pattern[at] == "(":
            self._at += 3 if pattern.startswith("(?:", at) else 1
            if pattern[self._at : self._at + 1] == "?":
                raise ValueError(f"{pattern[at : at + 3]!r} is not understood; groups may be (...) or (?:...)")
            inner = self._alternatives()
            if pattern[self._at : self._at + 1] != ")":
                raise ValueError(f"the group at {at} is not closed")
            self._at += 1
            return inner
        if pattern[at] in "^$":
            self._at += 1
            is_start = pattern[at] == "^"
            return lambda text, starts: starts & {0 if is_start else len(text)}
        found = _ONE_CHARACTER.match(pattern, at)
        if found is None:
            raise ValueError(f"{pattern[at : at + 2]!r} at {at} is not understood")
        self._at = found.end()
        try:
            one = re.compile(found[0])
        except re.error as error:
            raise ValueError(str(error)) from None
        return lambda text, starts: {start + 1 for start in starts if one.match(text, start)}

    def _repeated(self, part: Ends) -> Ends:
        found = _REPEAT.match(self._pattern, self._at)
        if found is None:
            return part
        self._at = found.end()
        if self._pattern[self._at : self._at + 1] == "?":  # as few as possible: the whole text decides all the same
            self._at += 1
        bounds = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(found[0])
        if bounds is None:
            least, comma, most = found[0][1:-1].partition(",")
            bounds = int(least[:9]), (int(most[:9]) if most else None) if comma else int(least[:9])
        least_times, most_times = bounds
        if max(least_times, most_times or 0) > _MAX_REPEATS or (most_times is not None and most_times < least_times):
            raise ValueError(f"{found[0]} is out of range; at most {_MAX_REPEATS} repetitions are counted")

        def ends(text: str, starts: set[int]) -> set[int]:
            for _ in range(least_times):
                starts = part(text, starts)
            reached, new, times = set(starts), starts, least_times
            while new and times != most_times:
                self._count(len(new))
                new = part(text, new) - reached
                reached |= new
                times += 1
            return reached

        return ends
