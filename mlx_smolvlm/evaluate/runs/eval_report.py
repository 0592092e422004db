"""The page of a run: scores with intervals, drawings, and rows with their images, wrong ones first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...files import refuse_foreign, whole_file, write_json
from ..data.eval_rows import EvalRow
from .evaluation_folder import REPORT, SUMMARY, Result, read_results
from .page_parts import MADE_BY, bars, columns, example, page, table
from .summary import summarize

_SHOWN = 24  # rows of each kind
_MOST_BARS = 40
_TENTHS = 10


def write_summary(
    folder: Path, rows: Sequence[EvalRow], settings: Mapping[str, Any], judged: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write `summary.json` and `report.html` of a run, and return the summary."""
    results = read_results(folder)
    summary = summarize(rows, results, settings)
    if judged:
        summary["judge"] = dict(judged)
    with whole_file(folder / SUMMARY) as file:
        write_json(file, summary)
    write_page(folder / REPORT, report(rows, results, summary))
    return summary


def write_page(target: Path, text: str) -> None:
    """Write a page, whole or not at all. Raises FileExistsError if another program's file is there."""
    with whole_file(target, lambda path: refuse_foreign(path, is_own_page, "report of this program")) as file:
        file.write_text(text, encoding="utf-8", errors="backslashreplace")


def is_own_page(path: Path) -> bool:
    """Whether a file is a page of this command."""
    with open(path, "rb") as file:
        return MADE_BY.encode() in file.read(1000)


def report(rows: Sequence[EvalRow], results: Sequence[Result], summary: Mapping[str, Any]) -> str:
    """The page of a run."""
    run, sets = summary["run"], summary["sets"]
    parts = [table(["", ""], [(name, _shown(run[name])) for name in run if name not in ("format", "data")])]
    names = ["set", "score", "95 % from", "to", "rows", "scored", "matched nothing", "failed", "cut off"]
    parts.append(table(names, [(name, *_figures(found)) for name, found in sets.items()]))
    parts.append(bars("Score, with its 95 % interval", [_bar(name, found) for name, found in sets.items()]))
    for name, found in sets.items():
        if found["metrics"]:
            parts.append(table([f"{name}: the set's own figures", ""], list(found["metrics"].items())))
        for kind in ("splits", "categories"):
            if found[kind]:
                values = [_bar(part, figures) for part, figures in found[kind].items()]
                parts.append(bars(f"{name}: {kind}", values[:_MOST_BARS]))
                parts.append(
                    table([f"{name}: {kind}", *names[1:]], [(a, *_figures(b)) for a, b in found[kind].items()])
                )
    parts.append(_score_columns(results))
    by_key = {row.key: row for row in rows}
    kinds = (
        ("wrong", "Wrong answers", lambda result: result["finish_reason"] != "error" and not is_right(result)),
        ("right", "Right answers", is_right),
        ("failed", "Rows without an answer", lambda result: result["finish_reason"] == "error"),
    )
    for kind, title, belongs in kinds:
        own = [result for result in results if belongs(result)]
        if own:
            shown = _spread(own, _SHOWN)
            parts.append(
                f"<h2>{title}: {len(own)}{f', {len(shown)} of them shown' if len(shown) < len(own) else ''}</h2>"
            )
            parts.append(f"<div class='rows'>{''.join(_example(kind, by_key, result) for result in shown)}</div>")
    return page(f"Evaluation of {run['model']}", *parts)


def is_right(result: Result) -> bool:
    """Whether an answer counts as right where only right and wrong are told apart: a score of at least a half."""
    return result["score"] is not None and float(result["score"]) >= 0.5


def _spread(results: Sequence[Result], most: int) -> list[Result]:
    """Up to `most`, from everywhere in the run."""
    if len(results) <= most:
        return list(results)
    return [results[number * len(results) // most] for number in range(most)]


def _example(kind: str, by_key: Mapping[tuple[str, str], EvalRow], result: Result) -> str:
    row = by_key.get((result["dataset"], str(result["index"])))
    texts: list[tuple[str, object]] = [("expected", result["expected"]), ("answer", result["answer"])]
    if result["extracted"]:
        texts.append(("read as", result["extracted"]))
    if result["error"]:
        texts.append(("reason", result["error"]))
    score = "no score" if result["score"] is None else f"{100 * result['score']:.0f}"
    return example(kind, row, f"{result['dataset']} {result['index']}: {score}", *texts)


def _score_columns(results: Sequence[Result]) -> str:
    counts = [0] * (_TENTHS + 1)
    for result in results:
        if result["score"] is not None:
            counts[int(_TENTHS * float(result["score"]) + 1e-9)] += 1
    names = [f"{100 * tenth // _TENTHS}+" for tenth in range(_TENTHS)] + ["100"]
    return columns("Rows by score", names, counts)


def _bar(name: str, found: Mapping[str, Any]) -> tuple[str, float, float, float]:
    low, high = found["interval"] or (0.0, 0.0)
    return name, found["score"] or 0.0, low, high


def _figures(found: Mapping[str, Any]) -> list[object]:
    if found["score"] is None:
        return ["none", "", "", found["n"], 0, "", found["failed"], found["truncated"]]
    low, high = found["interval"]
    unmatched = f"{found['unmatched']:.1%}"
    return [found["score"], low, high, found["n"], found["scored"], unmatched, found["failed"], found["truncated"]]


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
