"""Which of a few things a free answer says, for questions of the mini suite that show no options."""

import re
from collections.abc import Mapping, Sequence


def named_choice(answer: str, choices: Mapping[str, Sequence[str]]) -> str | None:
    """The choice that an answer names last; None if it names none.

    Words count as a whole and in any case. Of two mentions that overlap the longer counts: "top left" is not "left".
    The last one counts since answers lead up to it: "from left to right", "a red star, then a blue one: the color
    differs".

    Args:
        answer: what a model said.
        choices: choice -> the words for it.
    """
    mentions = [
        (found.start(), found.end(), choice)
        for choice, names in choices.items()
        for name in names
        for found in re.finditer(rf"\b{re.escape(name.lower())}\b", answer.lower())
    ]
    whole = [
        (end, choice)
        for start, end, choice in mentions
        if not any(a <= start and end <= b and b - a > end - start for a, b, _ in mentions)
    ]
    return max(whole)[1] if whole else None
