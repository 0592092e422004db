"""Scores equal those of VLMEvalKit's functions: cases from a comparison of 5,000 fuzzed pairs for each scorer."""

import gzip
import json

import pytest
from support.layout import ROOT

from mlx_smolvlm.evaluate.data.eval_rows import EvalRow
from mlx_smolvlm.evaluate.scoring.intervals import interval, mcnemar, wilson
from mlx_smolvlm.evaluate.scoring.option_scorers import (
    first_letter,
    inferred_option,
    is_mlvu_answer,
    is_mvbench_answer,
    tempcompass_caption,
    tempcompass_option,
    tempcompass_yes_no,
)
from mlx_smolvlm.evaluate.scoring.scorers import score_answer
from mlx_smolvlm.evaluate.scoring.text_scorers import edit_distance, plain_words, yes_or_no

SUITE = json.loads(gzip.decompress((ROOT / "tests" / "goldens" / "vlmeval_scores.json.gz").read_bytes()))["cases"]


def scored(scorer, answer, prediction, **fields):
    row = EvalRow(
        index=1, dataset=fields.pop("dataset", "x"), question=fields.pop("question", "Q"), answer=answer, **fields
    )
    return score_answer(scorer, row, prediction)


def of_answers(scorer, **fields):
    return lambda answer, prediction: scored(scorer, answer, prediction, **fields).score


def or_fail(right):
    return "fail" if right is None else int(right)


OWN = {
    "relaxed": of_answers("relaxed"),
    "anls": of_answers("anls"),
    "vqa": of_answers("vqa"),
    "exact": of_answers("exact"),
    "ocrbench": of_answers("ocrbench"),
    "hand": of_answers("ocrbench", category="Handwritten Mathematical Expression Recognition"),
    "yes_no": lambda prediction: yes_or_no(prediction) or "Unknown",
    "letter": lambda options, prediction: inferred_option(prediction, options) or False,
    "video": lambda question, prediction: first_letter(prediction, "ABCD", question, {}) or "Z",
    "long": lambda question, prediction: first_letter(prediction, "ABCDE", question, {}) or "Z",
    "mvbench": lambda candidates, answer, prediction: is_mvbench_answer(prediction, answer, candidates)[0],
    "mlvu": lambda candidates, answer, prediction: is_mlvu_answer(prediction, answer, candidates)[0],
    "temp_mc": lambda answer, prediction: or_fail(tempcompass_option(prediction, answer)),
    "temp_cap": lambda options, answer, prediction: or_fail(tempcompass_caption(prediction, answer, options)),
    "temp_yn": lambda prediction: tempcompass_yes_no(prediction) or False,
}


@pytest.mark.parametrize("name", OWN)
def test_scores_of_made_up_answers_equal_the_suites(name):
    assert len(SUITE[name]) > 100
    assert [case for case in SUITE[name] if OWN[name](*case[:-1]) != case[-1]] == []


@pytest.mark.parametrize(
    ("answer", "prediction", "score"),
    [
        ("100", "105", 1),
        ("100", "106", 0),
        ("12%", "0.12", 1),
        ("12%", "12", 0),
        ("0", "0.0", 0),  # zero is compared as text
        ("1,234", "1234", 0),
        ("Red", "red ", 1),
        ("['red', 'blue']", "Blue", 1),
        ("nan", "nan", 0),
        ("5 kg", "5", 0),
        ("", "", 1),
    ],
)
def test_relaxed_accuracy(answer, prediction, score):
    assert scored("relaxed", answer, prediction).score == score


def test_anls_is_zero_below_a_half():
    assert edit_distance("kitten", "sitting") == 3
    assert scored("anls", "abcd", "abcx").score == 0.75
    assert scored("anls", "abcd", "abxy").score == 0.5
    assert scored("anls", "abcd", "axyz").score == 0.0
    assert scored("anls", ["図", "two  words"], "Two words").score == 1 - 0 / 10
    assert scored("anls", "", "").score == 1.0


def test_vqa_accuracy_counts_the_others():
    people = str(["cat"] * 3 + ["a cat"] + ["dog"] * 6)
    assert scored("vqa", people, "The cat.").score == 1.0
    assert scored("vqa", str(["cat", *["dog"] * 9]), "cat").score == pytest.approx(0.3)
    assert scored("vqa", "cat", "cat").score == 0.0  # nobody else said so
    assert plain_words("Its 3,000 dont... two-way: none") == "its 3000 don't twoway: 0"
    assert plain_words("two-way") == "2 way"


def test_ocrbench_looks_for_the_answer_in_the_text():
    formula = "Handwritten Mathematical Expression Recognition"
    assert scored("ocrbench", "['Hello']", "it says hello there").score == 1
    assert scored("ocrbench", "['a + b']", "a+b").score == 0
    assert scored("ocrbench", "['a + b']", "A = a+b", category=formula).score == 1
    assert scored("ocrbench", "['A + b']", "a+b", category=formula).score == 0


@pytest.mark.parametrize(
    ("prediction", "option"),
    [
        ("B", "B"),
        ("The answer is (C).", "C"),
        ("B or C", None),
        ("B is a letter that stands too far from the end", None),
        ("a blue one", "B"),
        ("red, blue", None),
        ("Z", None),
        ("Cannot determine the answer B", None),
        ("", None),
    ],
)
def test_option_letters(prediction, option):
    options = {"A": "red", "B": "blue", "C": "green", "E": "none of them, whatever the colour"}
    found = scored("letter", "B", prediction, options=options)
    assert (found.extracted, found.is_matched, found.score) == (option, option is not None, float(option == "B"))


def test_open_questions_of_mmmu_have_their_answer_as_first_option():
    assert scored("mmmu", "3.5 m", "3.5 m").score == 1
    assert scored("mmmu", "3.5 m", "4").score == 0


def test_yes_and_no():
    assert scored("yes_no", "Yes", "Yes, it is").score == 1
    assert not scored("yes_no", "Yes", "yes and no").is_matched
    assert scored("yes_no", "yes", "Yes").score == 0  # the suite's answers are capitalized, but AMBER's
    assert scored("yes_no", "yes", "Yes", dataset="AMBER").score == 1


def test_video_sets():
    assert scored("video_letter", "C", "The correct answer is C").score == 1
    assert scored("video_letter", "C", "Best answer: C").extracted == "B"  # as the suite reads it
    assert scored("video_letter", "E", "E").score == 0
    assert scored("long_video_letter", "E", "E").score == 1
    two = {"candidates": ["He sits.", "He runs."]}
    assert scored("mvbench", "He runs.", "(B) He runs.", **two).score == 1
    assert scored("mvbench", "He runs.", "he runs", **two).score == 0
    assert scored("mlvu", "He runs.", "(B) x", **two).score == 1
    assert scored("tempcompass", "A. left", "A) left").score == 1
    assert not scored("tempcompass", "A. left", "left").is_matched
    assert scored("tempcompass_yorn", "yes", "Yes.").score == 1


def test_a_row_without_an_answer_and_an_unknown_scorer_are_named():
    with pytest.raises(ValueError, match="has no answer"):
        scored("exact", None, "x")
    with pytest.raises(ValueError, match="'F' is none of its options \\(A, C\\)"):
        scored("letter", "F", "A", options={"A": "x", "C": "y"})
    assert scored("letter", "red", "B", options={"A": "blue", "B": "red"}).score == 1
    with pytest.raises(ValueError, match="did you mean 'relaxed'"):
        scored("relaxt", "x", "x")


def test_intervals_and_the_test_of_two_runs():
    low, high = wilson(8, 10)  # 0.4901625 and 0.9433178 by the formula
    assert (round(low, 7), round(high, 7)) == (0.4901625, 0.9433178)
    assert interval([1.0] * 8 + [0.0] * 2) == (low, high)
    low, high = interval([0.5, 0.7, 1.0, 0.0] * 25)
    assert 0.45 < low < 0.55 < high < 0.65
    assert interval([]) == (0.0, 1.0)
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(1, 9) == 22 / 1024
    assert mcnemar(4000, 4000) == 1.0
