"""Two runs on the same rows: how far their tokens agree, which answers flipped, and whether that is chance."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...command_line.progress import counted
from ...files import refuse_foreign, whole_file, write_json
from ..data.eval_rows import EvalRow
from ..data.row_files import read_rows
from ..scoring.intervals import grouped, interval, mcnemar
from .eval_report import is_right, write_page
from .evaluation_folder import PLACES, RESULTS, Result, read_results, read_run
from .page_parts import example, page, table

COMPARISON, COMPARISON_PAGE = "comparison.json", "comparison.html"
FORMAT = "mlx-smolvlm comparison 1"
_SHOWN = 100  # flips in a page


def compare_runs(first: Path, second: Path) -> dict[str, Any]:
    """Compare two runs.

    Returns:
        `runs`, what each depends on; `n` rows; `tokens`: `identical`, the share of rows with the same tokens, and
        `agreement`, the mean share of tokens before the first difference; `same_prompts`, the share of rows that were
        asked the same; `scores` of both, and `difference` (second minus first) with its 95 % `interval`;
        `first_only` and `second_only`, rows that just one has right, and `p`, McNemar's exact test; `sets` and
        `categories`, the same figures for each; `flips`, the rows.

    Raises:
        FileNotFoundError: no run.
        ValueError: runs of other rows, of rows in another order, or of which one is not complete.
    """
    runs = [read_run(path) or {} for path in (first, second)]
    a, b = _paired(first, second)
    if len(a) != (rows := runs[0].get("rows", len(a))):
        raise ValueError(f"{first} and {second} have {len(a)} of {rows} rows; run their commands again to do the rest")
    pairs = list(zip(a, b, strict=True))
    sets = grouped(pairs, lambda pair: str(pair[0]["dataset"]))
    in_category = [pair for pair in pairs if pair[0]["category"] is not None]
    categories = grouped(in_category, lambda pair: (str(pair[0]["dataset"]), str(pair[0]["category"])))
    return {
        "runs": runs,
        **_figures(pairs),
        "sets": {name: _figures(own) for name, own in sets.items()},
        "categories": [
            {"dataset": dataset, "category": category} | _figures(own)
            for (dataset, category), own in sorted(categories.items(), key=lambda named: named[0])
        ],
        "flips": [
            {
                **{name: x[name] for name in ("dataset", "index", "category", "expected")},
                "answers": [x["answer"], y["answer"]],
                "scores": [x["score"], y["score"]],
            }
            for x, y in pairs
            if is_right(x) != is_right(y)
        ],
    }


def _paired(first: Path, second: Path) -> tuple[list[Result], list[Result]]:
    a, b = read_results(first), read_results(second)
    for number, (x, y) in enumerate(zip(a, b, strict=False), 1):
        names = [f"{result['dataset']} {result['index']}" for result in (x, y)]
        if names[0] != names[1]:
            raise ValueError(
                f"line {number} of {first / RESULTS} is of the row {names[0]}, that of {second / RESULTS} of "
                f"{names[1]}; only runs of the same rows in the same order can be compared"
            )
        if x["row"] != y["row"]:
            raise ValueError(
                f"the row {names[0]} (line {number}) has another question, answer or image in {second} than in "
                f"{first}; only runs of the same rows can be compared"
            )
    if len(a) != len(b):
        raise ValueError(
            f"{first} has {len(a)} rows and {second} {len(b)}; only runs of the same rows can be compared (one that "
            "was stopped goes on when its command is run again)"
        )
    if not a:
        raise ValueError(f"{first} and {second} have no rows")
    return a, b


def _figures(pairs: Sequence[tuple[Result, Result]]) -> dict[str, Any]:
    both = [(x, y) for x, y in pairs if x["score"] is not None and y["score"] is not None]
    first_only = sum(is_right(x) and not is_right(y) for x, y in both)
    second_only = sum(is_right(y) and not is_right(x) for x, y in both)
    differences = [float(y["score"]) - float(x["score"]) for x, y in both]
    low, high = _difference_interval(differences)
    shares = [_agreement(x["token_ids"], y["token_ids"]) for x, y in pairs]
    return {
        "n": len(pairs),
        "tokens": {
            "identical": _mean([float(x["token_ids"] == y["token_ids"]) for x, y in pairs]),
            "agreement": _mean(shares),
        },
        "same_prompts": _mean([float(x["prompt"] == y["prompt"]) for x, y in pairs]),
        "scores": [100 * _mean([float(pair[place]["score"]) for pair in both]) for place in (0, 1)],
        "difference": round(100 * _mean(differences), 4),
        "interval": [round(100 * low, 4), round(100 * high, 4)],
        "first_only": first_only,
        "second_only": second_only,
        "p": mcnemar(first_only, second_only),
    }


def _difference_interval(differences: Sequence[float]) -> tuple[float, float]:
    """By resampling rows; the halves of 0 to 1 stand for -1 to 1."""
    if not any(differences):
        return 0.0, 0.0
    low, high = interval([(difference + 1) / 2 + 1e-12 for difference in differences])
    return 2 * low - 1, 2 * high - 1


def _agreement(first: Sequence[int], second: Sequence[int]) -> float:
    longest = max(len(first), len(second))
    if not longest:
        return 1.0
    same = next((place for place, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), None)
    return (min(len(first), len(second)) if same is None else same) / longest


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 6) if values else 0.0


def comparison_text(found: Mapping[str, Any]) -> str:
    """For people."""
    lines = [f"{name}: {_run_text(run)}" for name, run in zip("AB", found["runs"], strict=True)]
    lines.append(f"{counted(found['n'], 'row')}; {_line(found)}")
    lines += [f"  {name}: {_line(part)}" for name, part in found["sets"].items() if len(found["sets"]) > 1]
    lines += [f"  {part['dataset']}, {part['category']}: {_line(part)}" for part in found["categories"]]
    return "\n".join(lines)


def _run_text(run: Mapping[str, Any]) -> str:
    return f"{run['model']}, {run['dtype']}, {run['protocol']}"


def _line(found: Mapping[str, Any]) -> str:
    (a, b), (low, high) = found["scores"], found["interval"]
    flips = found["first_only"] + found["second_only"]
    tokens = f"tokens identical in {found['tokens']['identical']:.1%} of rows"
    if found["tokens"]["identical"] < 1:
        tokens += f", {found['tokens']['agreement']:.1%} of tokens before the first difference"
    text = f"{a:.2f} and {b:.2f}, {found['difference']:+.2f} (95 %: {low:+.1f} to {high:+.1f}); {tokens}; "
    text += counted(flips, "flip")
    if flips:
        text += f" ({found['first_only']} only A right, {found['second_only']} only B right), p = {found['p']:.3g}"
    return text


def write_comparison(found: Mapping[str, Any], first: Path, folder: Path) -> None:
    """Write `comparison.json` and `comparison.html`.

    Raises:
        FileExistsError: another program's files are there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / COMPARISON, lambda path: refuse_foreign(path, _is_own, "comparison")) as file:
        write_json(file, {"format": FORMAT, **found})
    write_page(folder / COMPARISON_PAGE, comparison_page(found, first))


def _is_own(path: Path) -> bool:
    with open(path, "rb") as file:
        return FORMAT.encode() in file.read(200)


def comparison_page(found: Mapping[str, Any], first: Path) -> str:
    """The page: the figures, and the flips with their images where the data of the first run are still there."""
    rows = _rows(first)
    names = ["", "A", "B", "difference", "from", "to", "identical tokens", "only A right", "only B right", "p"]
    lines = [("all", found), *found["sets"].items()]
    lines += [(f"{part['dataset']}, {part['category']}", part) for part in found["categories"]]
    parts = [table(["run", ""], [(name, _run_text(run)) for name, run in zip("AB", found["runs"], strict=True)])]
    parts.append(table(names, [(name, *_cells(part)) for name, part in lines]))
    flips = found["flips"]
    note = f", {_SHOWN} of them shown" if len(flips) > _SHOWN else ""
    parts.append(f"<h2>Flips: {len(flips)}{note}</h2>")
    examples = []
    for flip in flips[:_SHOWN]:
        kind = "right" if (flip["scores"][1] or 0) >= (flip["scores"][0] or 0) else "wrong"
        texts = [("expected", flip["expected"]), ("A", flip["answers"][0]), ("B", flip["answers"][1])]
        row = rows.get((flip["dataset"], str(flip["index"])))
        examples.append(example(kind, row, f"{flip['dataset']} {flip['index']}", *texts))
    parts.append(f"<div class='rows'>{''.join(examples)}</div>")
    return page("Comparison of two runs", *parts)


def _cells(found: Mapping[str, Any]) -> list[object]:
    identical = f"{found['tokens']['identical']:.1%}"
    figures = [*found["scores"], found["difference"], *found["interval"], identical]
    return [*figures, found["first_only"], found["second_only"], f"{found['p']:.3g}"]


def _rows(folder: Path) -> dict[tuple[str, str], EvalRow]:
    """The rows of a run by their keys, if its data are still where they were."""
    try:
        places = json.loads((folder / PLACES).read_text(encoding="utf-8"))
        run = read_run(folder) or {}
        root = Path(places["image_root"]) if places["image_root"] else None
        found = read_rows([Path(path) for path in places["data"]], run.get("dataset"), root)
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {row.key: row for row in found.rows}
