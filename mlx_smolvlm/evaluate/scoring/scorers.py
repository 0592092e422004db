"""Scorers by name: a row and an answer -> a score, and whether the answer could be matched with anything."""

import ast
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...options import did_you_mean, quoted
from ..data.eval_rows import EvalRow
from .mini_choice import named_choice
from .option_scorers import (
    NONE,
    first_letter,
    inferred_option,
    is_mlvu_answer,
    is_mvbench_answer,
    letter_of,
    lettered,
    options_of,
    tempcompass_caption,
    tempcompass_option,
    tempcompass_yes_no,
)
from .text_scorers import anls, exact, ocrbench, relaxed, vqa, yes_or_no


@dataclass(frozen=True)
class RowScore:
    """The score of an answer.

    Attributes:
        score: 0 to 1.
        is_matched: False if nothing was found in the answer that could be compared (no option, neither yes nor no, no
            text), so that it counts as wrong.
        extracted: what was found; None where the whole answer is compared.
    """

    score: float
    is_matched: bool
    extracted: str | None = None


def score_answer(name: str, row: EvalRow, prediction: str) -> RowScore:
    """The score of a row's answer by the scorer of this name.

    Raises:
        ValueError: no such scorer, or a row without what it needs.
    """
    if row.answer is None:
        raise ValueError("has no answer to compare with")
    return SCORERS[check_scorer(name)](row, prediction)


def check_scorer(name: str) -> str:
    """The name of a scorer. Raises ValueError if there is none."""
    if name not in SCORERS:
        advice = did_you_mean(name, list(SCORERS)) or f"expected one of {', '.join(SCORERS)}"
        raise ValueError(f"no scorer {quoted(name)}; {advice}")
    return name


def answers_of(row: EvalRow) -> list[str]:
    """All answers that count; a text that is written as a list of Python is one."""
    if isinstance(row.answer, list):
        return row.answer or [""]
    text = row.answer or ""
    values = _python_list(text.strip())
    return [str(value) for value in values] if values else [text]


def _python_list(text: str) -> list[Any] | None:
    if text[:1] != "[" or text[-1:] != "]":
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of texts that are nearly Python
            values = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None
    return values if isinstance(values, list) else None


def _answer(row: EvalRow) -> str:
    return row.answer if isinstance(row.answer, str) else answers_of(row)[0]


def _whole(score: Callable[[Sequence[str], str], float]) -> Callable[[EvalRow, str], RowScore]:
    def scored(row: EvalRow, prediction: str) -> RowScore:
        return RowScore(score(answers_of(row), prediction), bool(prediction.strip()))

    return scored


def _ocrbench(row: EvalRow, prediction: str) -> RowScore:
    return RowScore(ocrbench(answers_of(row), prediction, row.category), bool(prediction.strip()))


def _named(named: str | None, answer: str) -> RowScore:
    is_matched = named is not None and named != NONE
    return RowScore(float((named or NONE) == answer), is_matched, named if is_matched else None)


def _letter(row: EvalRow, prediction: str) -> RowScore:
    """The answer of a row is a letter; rows of one's own may have the option's text there."""
    options, answer = options_of(row), _answer(row)
    if answer not in options:
        texts = {text.strip(): letter for letter, text in options.items()}
        if answer.strip() not in texts:
            raise ValueError(f"the answer {quoted(answer)} is none of its options ({', '.join(options) or 'none'})")
        answer = texts[answer.strip()]
    return _named(inferred_option(prediction, options), answer)


def _mmmu(row: EvalRow, prediction: str) -> RowScore:
    """Open questions of MMMU have two options: A, their answer, and B, any other."""
    answer = _answer(row)
    options = options_of(row) if "A" in row.options else {**row.options, "A": answer, "B": "Other Answers"}
    is_letter = len(answer) == 1 and "A" <= answer <= "Z"
    return _named(inferred_option(prediction, options), answer if is_letter else "A")


def _mathvista(row: EvalRow, prediction: str) -> RowScore:
    """What the suite accepts without a judge: the option, or a number that is equal; other answers as texts."""
    fields = row.fields
    choices = _python_list(fields.get("choices", ""))
    if fields.get("question_type") == "multi_choice" and choices:
        right = fields.get("answer_option") or letter_of(_answer(row), choices)
        return _named(inferred_option(prediction, lettered([str(choice) for choice in choices])), right)
    for kind, read in (("integer", int), ("float", float)):
        if fields.get("answer_type") == kind:
            try:
                return RowScore(float(read(prediction) == read(_answer(row))), True, prediction.strip())
            except ValueError:
                return RowScore(0.0, False)
    return _whole(exact)(row, prediction)


def _yes_no(row: EvalRow, prediction: str) -> RowScore:
    named = yes_or_no(prediction)
    answer = _answer(row).lower() if row.dataset == "AMBER" else _answer(row)
    said = named.lower() if named and row.dataset == "AMBER" else named
    return RowScore(float(said == answer), named is not None, named)


def _first_letter(letters: str) -> Callable[[EvalRow, str], RowScore]:
    def scored(row: EvalRow, prediction: str) -> RowScore:
        return _named(first_letter(prediction, letters, row.question, row.options), _answer(row))

    return scored


def _of_candidates(
    is_right: Callable[[str, str, Sequence[str]], tuple[bool, bool]],
) -> Callable[[EvalRow, str], RowScore]:
    def scored(row: EvalRow, prediction: str) -> RowScore:
        right, is_matched = is_right(prediction, _answer(row), row.candidates or [])
        return RowScore(float(right), is_matched)

    return scored


def _tempcompass(row: EvalRow, prediction: str) -> RowScore:
    if row.fields.get("task_type") == "caption_matching":
        right = tempcompass_caption(prediction, _answer(row), row.candidates or [])
    else:
        right = tempcompass_option(prediction, _answer(row))
    return RowScore(float(bool(right)), right is not None)


def _tempcompass_yorn(row: EvalRow, prediction: str) -> RowScore:
    named = tempcompass_yes_no(prediction)
    return RowScore(float(named == _answer(row)), named is not None, named)


def _choice(row: EvalRow, prediction: str) -> RowScore:
    """The mini suite's: each thing that is asked is named, see `named_choice`."""
    groups = _choice_groups(row.fields.get("choices", "[]"))
    named = [named_choice(prediction, names) for names in groups]
    is_matched = bool(named) and all(named)
    return RowScore(float(is_matched and named == answers_of(row)), is_matched, ", ".join(filter(None, named)) or None)


def _choice_groups(text: str) -> list[dict[str, list[str]]]:
    try:
        groups = json.loads(text)
        lists = [names for group in groups for names in group.values()]
    except (ValueError, TypeError, AttributeError, RecursionError):
        lists = [text]
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists):
        raise ValueError(f"choices is {quoted(text)}, expected a list of objects such as {{'left': ['left']}}")
    return groups  # type: ignore[no-any-return]  # as was just seen


SCORERS: dict[str, Callable[[EvalRow, str], RowScore]] = {
    "exact": _whole(exact),
    "letter": _letter,
    "relaxed": _whole(relaxed),
    "anls": _whole(anls),
    "vqa": _whole(vqa),
    "ocrbench": _ocrbench,
    "yes_no": _yes_no,
    "mmmu": _mmmu,
    "mathvista": _mathvista,
    "video_letter": _first_letter("ABCD"),
    "long_video_letter": _first_letter("ABCDE"),
    "mvbench": _of_candidates(is_mvbench_answer),
    "mlvu": _of_candidates(is_mlvu_answer),
    "tempcompass": _tempcompass,
    "tempcompass_yorn": _tempcompass_yorn,
    "choice": _choice,
}
