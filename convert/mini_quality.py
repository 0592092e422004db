"""Scores of two checkpoints on the mini suite, beside the measures of `compare.py`."""

import tempfile
from pathlib import Path
from typing import Any

from ..api.finding import find_checkpoint
from ..api.loading import load
from ..evaluate.data.row_files import read_rows
from ..evaluate.mini.mini_selection import MiniSuite
from ..evaluate.mini.mini_suite import write_mini_suite
from ..evaluate.prompts.row_prompts import CHAT, wrapper_for
from ..evaluate.runs.eval_run import Asking, EvalRun
from ..evaluate.scoring.intervals import interval, mcnemar

MINI_ROWS = 45  # every category, easy, medium and hard
MAX_TOKENS = 48  # of an answer: true ones are short, and a checkpoint that is broken does not end


def mini_quality(reference: str | Path, candidate: str | Path, num_rows: int, dtype: str = "float32") -> dict[str, Any]:
    """Ask two checkpoints, one after the other, the first rows of the mini suite.

    Returns:
        `mini_rows`; `mini_score` of the candidate and `reference_mini_score`, of 0 to 100, each with its 95 %
        `..._interval`; `mini_same_answers`, the share of rows with the same tokens; `mini_lost` and `mini_won`, rows
        that only the reference, or only the candidate, has right, and `mini_p`, McNemar's exact test of these.

    Raises:
        ValueError: as `MiniSuite`, or a checkpoint that cannot be loaded.
    """
    suite = MiniSuite(num_rows)
    with tempfile.TemporaryDirectory(prefix="mlx-smolvlm-mini-") as folder:
        rows = read_rows([write_mini_suite(suite, Path(folder) / "suite")]).rows
        asked = []
        for path in (reference, candidate):
            model, processor = load(find_checkpoint(path), dtype=dtype)
            asking = Asking(CHAT, wrapper_for(None, None), max_tokens=MAX_TOKENS)
            asked.append([result for result, _ in EvalRun(model, processor, asking).results(rows)])
            del model, processor  # two may not fit
    scores = [[float(result["score"] or 0) for result in results] for results in asked]
    pairs = list(zip(*scores, strict=True))
    lost, won = (sum(a >= 0.5 > b for a, b in pairs), sum(b >= 0.5 > a for a, b in pairs))
    same = sum(a["token_ids"] == b["token_ids"] for a, b in zip(*asked, strict=True))
    found: dict[str, Any] = {"mini_rows": num_rows}
    for prefix, values in zip(("reference_", ""), scores, strict=True):
        found[f"{prefix}mini_score"] = 100 * sum(values) / num_rows
        found[f"{prefix}mini_interval"] = [100 * end for end in interval(values)]
    return found | {
        "mini_same_answers": same / num_rows,
        "mini_lost": lost,
        "mini_won": won,
        "mini_p": mcnemar(lost, won),
    }
