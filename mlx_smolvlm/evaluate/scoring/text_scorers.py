"""Scores of free answers: exact, relaxed accuracy, ANLS, VQA accuracy, OCRBench, yes or no.

Ports, equal to the suite's functions on fuzzed pairs: ms-vlmeval 0.0.20, `vlmeval/dataset/utils/vqa_eval.py`,
`vlmeval/dataset/image_vqa.py` (OCRBench) and `vlmeval/dataset/utils/yorn.py`.
"""

import re
from collections.abc import Sequence

import numpy as np

RELATIVE_ERROR = 0.05  # that a number may have, in relaxed accuracy
ANLS_THRESHOLD = 0.5
_HANDWRITTEN = "Handwritten Mathematical Expression Recognition"
_FULL_AGREEMENT = 3  # people whose answer an answer must equal to count fully, in VQA accuracy
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"(?<!\d)\.(?!\d)")
_MOST_STOPS = 32  # that the suite takes out: it passes a flag in the place of a count
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMBER_WORDS)}}
_ARTICLES = {"a", "an", "the"}
# As the suite spells them; it knows them with any one apostrophe left out.
_CONTRACTIONS = """ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't
    he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
    needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll
    somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd
    there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll
    what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
    would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've"""


def _without_one_apostrophe(word: str) -> list[str]:
    places = [place for place, letter in enumerate(word) if letter == "'"]
    return [word[:place] + word[place + 1 :] for place in places]


_SPELLINGS = {key: word for word in _CONTRACTIONS.split() for key in _without_one_apostrophe(word)}
_SPELLINGS |= {"somebody'd": "somebodyd"}  # as it stands there


def exact(answers: Sequence[str], prediction: str) -> float:
    """1 if an answer is the prediction, but for case and white space around it."""
    return float(any(answer.strip().lower() == prediction.strip().lower() for answer in answers))


def relaxed(answers: Sequence[str], prediction: str) -> float:
    """Relaxed accuracy of ChartQA: a number may be off by 5 %, a text may differ in case alone."""
    return float(any(_is_near(answer, prediction.strip()) for answer in answers))


def _is_near(answer: str, prediction: str) -> bool:
    found, right = _number(prediction), _number(answer)
    if found is None or not right:
        return prediction.lower() == answer.lower()
    return abs(found - right) / abs(right) <= RELATIVE_ERROR


def _number(text: str) -> float | None:
    """What Python reads as a number; with a percent sign, a hundredth of it."""
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def anls(answers: Sequence[str], prediction: str) -> float:
    """1 minus the smallest normalized edit distance; 0 where that is below 0.5."""
    similarity = 1 - min(_normalized_distance(answer, prediction) for answer in answers)
    return 0.0 if similarity < ANLS_THRESHOLD else similarity


def _normalized_distance(answer: str, prediction: str) -> float:
    """Edits between the texts in lower case and with single spaces, over the longer one as it is."""
    distance = edit_distance(" ".join(answer.strip().lower().split()), " ".join(prediction.strip().lower().split()))
    length = max(len(answer.upper()), len(prediction.upper()))
    return distance / length if length else 0.0


def edit_distance(first: str, second: str) -> int:
    """Fewest insertions, deletions and substitutions of a character that make one text of the other."""
    row = list(range(len(first) + 1))
    for number, letter in enumerate(second, 1):
        corner, row[0] = row[0], number
        for place, other in enumerate(first, 1):
            substituted = corner + (letter != other)
            corner = row[place]
            row[place] = min(substituted, corner + 1, row[place - 1] + 1)
    return row[-1]


def vqa(answers: Sequence[str], prediction: str) -> float:
    """VQA accuracy: the mean over the people of min(1, how many of the others say the same / 3)."""
    said = [plain_words(answer) for answer in answers]
    found = plain_words(prediction)
    same = said.count(found)
    return float(np.mean([min(1.0, (same - (answer == found)) / _FULL_AGREEMENT) for answer in said]))


def plain_words(text: str) -> str:
    """An answer without case, punctuation and articles, numbers in figures, contractions with their apostrophes."""
    text = without_punctuation(text.replace("\n", " ").replace("\t", " ").strip())
    words = (_NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(_SPELLINGS.get(word, word) for word in words if word not in _ARTICLES)


def without_punctuation(text: str) -> str:
    """Punctuation becomes a space; nothing where it stands beside one, or where a number has a comma in it."""
    has_comma = _COMMA_IN_NUMBER.search(text) is not None
    cleaned = text
    for mark in _PUNCTUATION:
        is_dropped = has_comma or f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if is_dropped else " ")
    return _FULL_STOP.sub("", cleaned, count=_MOST_STOPS)


def ocrbench(answers: Sequence[str], prediction: str, category: str | None) -> float:
    """1 if an answer stands in the prediction: for formulas with all spaces taken out, otherwise in lower case."""
    if category == _HANDWRITTEN:
        found = prediction.strip().replace("\n", " ").replace(" ", "")
        return float(any(answer.strip().replace("\n", " ").replace(" ", "") in found for answer in answers))
    found = prediction.lower().strip().replace("\n", " ")
    return float(any(answer.lower().strip().replace("\n", " ") in found for answer in answers))


def yes_or_no(prediction: str) -> str | None:
    """ "Yes" or "No", if just one of the words stands there."""
    words = set(without_punctuation(prediction.lower()).split()) & {"yes", "no"}
    return words.pop().capitalize() if len(words) == 1 else None
