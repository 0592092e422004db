"""The lines of a run -> what is said of it: per set, per split and per category."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...command_line.progress import counted
from ..data.eval_rows import EvalRow
from ..prompts.wrapper_prompts import WRAPPERS
from ..scoring.intervals import grouped, interval
from ..scoring.judge import judge_text
from ..scoring.set_metrics import set_metrics
from .evaluation_folder import Result

_NO_CATEGORY = "none"


def summarize(rows: Sequence[EvalRow], results: Sequence[Result], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The summary of a run.

    Returns:
        `complete`, whether all rows are done; `run`, what it depends on; `sets`: for each set `n` rows, `scored` those
        that count, `score` and `interval` (95 %) of 0 to 100, `unmatched` the share of the scored whose answer could
        not be matched with anything, `failed` rows without an answer, `truncated` answers that ended by length,
        `metrics` of the set's own, `splits` and `categories` with the same figures.
    """
    by_key = {(result["dataset"], str(result["index"])): result for result in results}
    pairs = [(row, by_key[row.key]) for row in rows if row.key in by_key]
    sets = {}
    for dataset, own in grouped(pairs, lambda pair: pair[0].dataset).items():
        sets[dataset] = _figures(own) | {
            "scorers": sorted({result["scorer"] for _, result in own}),
            "metrics": {name: round(value, 4) for name, value in set_metrics(dataset, own).items()},
            "splits": _parts(own, lambda row: row.fields.get("split")),
            "categories": _parts(own, lambda row: row.category),
        }
    return {"complete": len(pairs) == len(rows), "run": dict(settings), "sets": sets}


def _parts(pairs: Sequence[tuple[EvalRow, Result]], name_of: Any) -> dict[str, Any]:
    parts = grouped(pairs, lambda pair: name_of(pair[0]) or _NO_CATEGORY)
    return {} if parts.keys() == {_NO_CATEGORY} else {name: _figures(parts[name]) for name in sorted(parts)}


def _figures(pairs: Sequence[tuple[EvalRow, Result]]) -> dict[str, Any]:
    scored = [result for _, result in pairs if result["score"] is not None]
    scores = [float(result["score"]) for result in scored]
    low, high = interval(scores)
    failed = sum(result["finish_reason"] == "error" for _, result in pairs)
    unmatched = sum(not result["matched"] for result in scored)
    return {
        "n": len(pairs),
        "scored": len(scored),
        "score": round(100 * sum(scores) / len(scores), 4) if scores else None,
        "interval": [round(100 * low, 4), round(100 * high, 4)] if scores else None,
        "unmatched": round(unmatched / len(scored), 6) if scored else None,
        "failed": failed,
        "truncated": sum(result["finish_reason"] == "length" for _, result in pairs),
    }


def summary_text(summary: Mapping[str, Any]) -> str:
    """For people: a line for each set, and for its own figures and categories."""
    run = summary["run"]
    lines = [", ".join([str(run["model"]), str(run["dtype"]), _protocol(run)])]
    for dataset, found in summary["sets"].items():
        lines.append(f"{dataset}: {_score_text(found)} ({', '.join(found['scorers'])})")
        if found["metrics"]:
            lines.append("  " + ", ".join(f"{name} {value:.2f}" for name, value in found["metrics"].items()))
        for kind in ("splits", "categories"):
            lines += [f"  {name}: {_score_text(part, is_part=True)}" for name, part in found[kind].items()]
    if "judge" in summary:
        lines.append(judge_text(summary["judge"]))
    return "\n".join(lines)


def _protocol(run: Mapping[str, Any]) -> str:
    if run["protocol"] == "chat":
        return "the model's own chat template"
    return f"VLMEvalKit's prompts for {WRAPPERS[str(run['wrapper'])]}"


def _score_text(found: Mapping[str, Any], *, is_part: bool = False) -> str:
    """The figures of a set, or of a part of it, on a line."""
    if found["score"] is None:
        return f"{counted(found['n'], 'row')}, none of which could be scored"
    low, high = found["interval"]
    text = f"{found['score']:.2f} (95 %: {low:.1f} to {high:.1f}), {counted(found['scored'], 'row')}"
    if found["n"] != found["scored"]:
        text += f" of {found['n']:,}"
    if found["unmatched"] or not is_part:
        text += f", {found['unmatched']:.1%} matched nothing"
    for name in ("failed", "truncated"):
        if found[name]:
            text += f", {found[name]} {name}"
    return text
