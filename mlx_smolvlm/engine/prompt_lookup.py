"""Prompt lookup: drafts the next tokens from what followed the last time the text read like this."""

LONGEST_MATCH = 3  # tokens
SHORTEST_MATCH = 2
SURE_AFTER = 2  # right guesses in a row after which drafts are tried; doubles with every draft that fails at once
SURE_AFTER_AT_MOST = 32


class PromptLookup:
    """Drafts the continuation of a text from its own beginning, prompt included.

    Guessing is nearly free, checking a draft costs a step of several tokens. So single tokens are guessed all along,
    and drafts begin when those guesses come true; they grow with success and stop without.

    Attributes:
        drafted: tokens drafted so far.
        accepted: those of them that the model would have chosen.
    """

    def __init__(self, prompt_ids: list[int], max_draft: int):
        self.drafted = 0
        self.accepted = 0
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # a run of tokens -> where its latest continuation stands
        self._max_draft = max_draft
        self._length = max_draft
        self._right_guesses = 0
        self._sure_after = SURE_AFTER
        for token in prompt_ids:
            self._append(token)
        self._place = self._find()

    @property
    def is_sure(self) -> bool:
        """Whether drafts are worth a try."""
        return self._right_guesses >= self._sure_after

    def add(self, token: int) -> None:
        """Take note of the answer's next token."""
        right = self._place is not None and self._tokens[self._place] == token
        self._right_guesses = self._right_guesses + 1 if right else 0
        self._append(token)
        if right and self._place is not None:
            self._place += 1  # a copy goes on where it was right, though its end may have occurred elsewhere since
        else:
            self._place = self._find()

    def draft(self, at_most: int) -> list[int]:
        """The next tokens, if the text goes on as it did; none if it has never read like this."""
        if self._place is None:
            return []
        period = len(self._tokens) - self._place  # beyond the end of the text it repeats itself
        length = min(self._length, at_most)
        return [self._tokens[self._place + number % period] for number in range(length)]

    def judge(self, drafted: int, accepted: int) -> None:
        """Learn from a draft of which the first `accepted` tokens were right."""
        self.drafted += drafted
        self.accepted += accepted
        if accepted:
            self._length = min(self._max_draft, 2 * accepted)
            self._sure_after = SURE_AFTER
        else:
            self._length = self._max_draft
            self._right_guesses = 0
            self._sure_after = min(2 * self._sure_after, SURE_AFTER_AT_MOST)

    def _append(self, token: int) -> None:
        """Add a token; runs that it continues now lead to it."""
        end = len(self._tokens)
        for length in range(SHORTEST_MATCH, LONGEST_MATCH + 1):
            if length <= end:
                self._after[tuple(self._tokens[end - length :])] = end
        self._tokens.append(token)

    def _find(self) -> int | None:
        """The place after the last occurrence of the text's end; the longest match decides."""
        for length in range(LONGEST_MATCH, SHORTEST_MATCH - 1, -1):
            place = self._after.get(tuple(self._tokens[-length:]))
            if place is not None and len(self._tokens) >= length:
                return place
        return None
