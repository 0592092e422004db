"""The figures that some sets report beside the mean score: of groups of rows, or of categories.

Source: ms-vlmeval 0.0.20, `vlmeval/dataset/utils/yorn.py` (MME, HallusionBench, POPE),
`vlmeval/dataset/utils/multiple_choice.py` (circular evaluation) and `vlmeval/dataset/image_vqa.py` (OCRBench).
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from ..data.eval_rows import EvalRow
from ..runs.evaluation_folder import Result

Pairs = Sequence[tuple[EvalRow, Result]]
_PERCEPTION = "OCR artwork celebrity color count existence landmark position posters scene".split()  # noqa: SIM905
_REASONING = "code_reasoning commonsense_reasoning numerical_calculation text_translation".split()  # noqa: SIM905
_ROUND = 10**6  # rows of one circular group have numbers that differ by this


def set_metrics(dataset: str, pairs: Pairs) -> dict[str, float]:
    """A set's own figures, as the suite reports them; empty for sets that report the mean alone."""
    for beginning, metrics in _METRICS.items():
        if dataset.startswith(beginning):
            return metrics(pairs)
    return {}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _groups(pairs: Pairs, key: Callable[[EvalRow], Any]) -> dict[Any, list[float]]:
    found: dict[Any, list[float]] = defaultdict(list)
    for row, result in pairs:
        found[key(row)].append(float(result["score"] or 0))
    return found


def _mme(pairs: Pairs) -> dict[str, float]:
    """Per category: share of questions and share of images with both questions right, as points of 200."""
    points: dict[str, float] = {}
    for category in sorted({row.category or "" for row, _ in pairs}):
        own = [pair for pair in pairs if (pair[0].category or "") == category]
        images = _groups(own, lambda row: row.images[0].name if row.images else "")
        both = [scores[0] * scores[1] for scores in images.values() if len(scores) > 1]
        points[category] = 100 * _mean([float(result["score"] or 0) for _, result in own]) + 100 * _mean(both)
    totals = {
        name: sum(points.get(category, 0.0) for category in categories)
        for name, categories in (("perception", _PERCEPTION), ("reasoning", _REASONING))
    }
    return totals | points


def _hallusion(pairs: Pairs) -> dict[str, float]:
    """Shares of questions, figures and question pairs that are right throughout; the index tells which is which."""
    if any(len(str(row.index).split("_")) < 6 for row, _ in pairs):
        return {}

    def part(*places: int) -> Callable[[EvalRow], Any]:
        return lambda row: (row.fields.get("l2-category"), *(str(row.index).split("_")[place] for place in places))

    whole = [
        100 * _mean([float(all(scores)) for scores in _groups(pairs, part(3, place)).values()]) for place in (4, 5)
    ]
    return {
        "aAcc": 100 * _mean([float(result["score"] or 0) for _, result in pairs]),
        "fAcc": whole[0],
        "qAcc": whole[1],
    }


def _pope(pairs: Pairs) -> dict[str, float]:
    """F1, precision and recall of "Yes", as the suite counts them: an answer that says neither is a "No"."""
    right = [row.answer == "Yes" for row, _ in pairs]
    said = [result["extracted"] == "Yes" for _, result in pairs]
    hits = sum(a and b for a, b in zip(right, said, strict=True))
    precision = hits / sum(said) if any(said) else 0.0
    recall = hits / sum(right) if any(right) else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {"f1": 100 * f1, "precision": 100 * precision, "recall": 100 * recall}


def _circular(pairs: Pairs) -> dict[str, float]:
    """Share of questions that are right in every order of their options."""

    def group(row: EvalRow) -> str:
        stated = row.fields.get("g_index")
        if stated is not None:
            return stated.removesuffix(".0")
        return str(row.index % _ROUND) if isinstance(row.index, int) else str(row.index)

    heads = {str(row.index) for row, _ in pairs}
    groups = {name: scores for name, scores in _groups(pairs, group).items() if name in heads}
    return {"circular": 100 * _mean([float(all(scores)) for scores in groups.values()])}


def _ocrbench(pairs: Pairs) -> dict[str, float]:
    total = sum(float(result["score"] or 0) for _, result in pairs)
    return {"final score": total, "final score / 10": total / 10}


_METRICS: dict[str, Callable[[Pairs], dict[str, float]]] = {
    "MMBench-Video": lambda _: {},
    "MMBench": _circular,
    "CCBench": _circular,
    "MME": _mme,
    "HallusionBench": _hallusion,
    "POPE": _pope,
    "OCRBench": _ocrbench,
}
