"""Which option an answer names.

Ports, equal to the suite's functions on fuzzed pairs: ms-vlmeval 0.0.20, `vlmeval/utils/matching_util.py`, and
`videomme.py`, `longvideobench.py`, `mvbench.py`, `mlvu.py` and `tempcompass.py` of `vlmeval/dataset/utils/`.
"""

import re
from collections.abc import Mapping, Sequence

from ..data.eval_rows import LETTERS, EvalRow

NONE = "Z"  # what the suite notes where a model refuses to choose
_FAILED = "Failed to obtain answer via API"
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_SEPARATORS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_LAST_WORDS = 5  # among which a letter must stand
_LONGEST = 10  # words of an answer in which a letter is not looked for, unless there is one
# Taken out before the first letter is looked for. Commas that the suite's list lacks join some of them.
_PREFIXES = (
    *("The best answer is", "The correct answer is", "The answer is", "The answer"),
    *("The best option isThe correct option is", "Best answer:Best option:", "Answer:", "Option:"),
)


def inferred_option(answer: str, options: Mapping[str, str]) -> str | None:
    """The option that an answer names by its letter or by its text; `NONE` if it refuses, None if neither is clear."""
    return _by_letter(answer, options) or _by_text(answer, options)


def _by_letter(answer: str, options: Mapping[str, str]) -> str | None:
    if _FAILED in answer:
        return None
    if any(refusal in answer for refusal in _REFUSALS):
        return NONE
    words = answer.translate(_SEPARATORS).split()
    named = [letter for letter in options if letter in words]
    if len(named) == 1:
        return named[0] if words.index(named[0]) > len(words) - _LAST_WORDS else None
    return NONE if not named and NONE in words else None


def _by_text(answer: str, options: Mapping[str, str]) -> str | None:
    answer = answer.lower()
    if len(answer) > 2 * sum(map(len, options.values())):
        return None
    named = [letter for letter, text in options.items() if text.lower() in answer]
    return named[0] if len(named) == 1 else None


def first_letter(answer: str, letters: str, question: str, options: Mapping[str, str]) -> str | None:
    """Video-MME's and LongVideoBench's reading: the first capital of `letters`, phrases that lead to it left out.

    Where there is none, the option that the answer names among those listed in the question.
    """
    rest = answer.strip()
    for prefix in _PREFIXES:
        rest = rest.replace(prefix, "")
    found = re.search(f"[{letters}]", rest)
    if found:
        return found[0]
    listed = dict(options)
    for letter, line in zip(LETTERS, question.split("\n")[1:], strict=False):
        _, mark, text = line.partition(f"{letter}.")
        if mark:
            listed[letter] = text.strip(". \n")
    return inferred_option(answer, listed)


def options_of(row: EvalRow) -> dict[str, str]:
    """A row's options, or its candidates with their letters."""
    return dict(row.options) or lettered(row.candidates or [])


def lettered(candidates: Sequence[str]) -> dict[str, str]:
    """Candidates with their letters."""
    return dict(zip(LETTERS, candidates, strict=False))


def letter_of(answer: str, candidates: Sequence[str]) -> str:
    """The letter of the last candidate that is the answer; the answer itself if there is none."""
    found = [letter for letter, text in lettered(candidates).items() if text == answer]
    return found[-1] if found else answer


def is_mvbench_answer(prediction: str, answer: str, candidates: Sequence[str]) -> tuple[bool, bool]:
    """Whether an answer is right, and whether it names an option: MVBench compares first words, "(a)" with "a."."""
    first = prediction.lower().strip().split(" ")[0]
    option = f"({_place(answer, candidates).lower()})"
    if first.replace(".", "") in option or option in first:
        return True, True
    return _is_inferred(prediction, answer, candidates)


def is_mlvu_answer(prediction: str, answer: str, candidates: Sequence[str]) -> tuple[bool, bool]:
    """Whether an answer is right, and whether it names an option: MLVU compares what stands before a bracket."""
    bracket = prediction.find(")")
    choice = prediction[bracket - 1 : bracket] if bracket >= 0 else prediction
    if choice == _place(answer, candidates):
        return True, True
    return _is_inferred(prediction, answer, candidates)


def _place(answer: str, candidates: Sequence[str]) -> str:
    """The letter of the answer among the candidates; "@" if it is none."""
    return letter_of(answer, candidates) if answer in candidates else "@"


def _is_inferred(prediction: str, answer: str, candidates: Sequence[str]) -> tuple[bool, bool]:
    named = inferred_option(prediction, lettered(candidates))
    right = answer
    for letter, text in lettered(
        candidates
    ).items():  # as the suite does: the first one, unless a later one is called so
        right = letter if text == right else right
    return (named or NONE) == right, named not in (None, NONE)


def tempcompass_option(prediction: str, answer: str) -> bool | None:
    """Whether an answer is right: by its text or its letter at the start; None if neither is there."""
    if prediction == answer:
        return True
    if prediction in tuple("ABCD") or prediction[:2] in tuple(f"{letter}{mark}" for letter in "ABCD" for mark in ".)"):
        return prediction[:1] == answer[:1]
    return None


def tempcompass_caption(prediction: str, answer: str, candidates: Sequence[str]) -> bool | None:
    """Whether an answer is right, of candidates such as "Sentence A: ..."; None if it names none."""
    names = [candidate.split(": ")[0] for candidate in candidates]
    texts = [candidate.split(": ")[1] for candidate in candidates if ": " in candidate]
    short = [re.sub("Sentence |Option |Caption ", "", name) for name in names]
    behind_bracket = prediction.split(") ")[1] if ") " in prediction else None
    said = next((text for text in candidates if text == prediction), None)
    said = next((text for text in reversed(texts) if text in (prediction, behind_bracket)), said)
    said = next(
        (name for name in reversed([*names, *short]) if name in (prediction, prediction.replace(".", ""))), said
    )
    if said is None:
        return None
    return said in (answer, answer.split(":")[0], *answer.split(": ")[1:2], *answer.split(": ")[0].split()[1:2])


def tempcompass_yes_no(prediction: str) -> str | None:
    """ "yes" or "no", if the answer begins so."""
    return next((word for word in ("yes", "no") if prediction.lower().startswith(word)), None)
