"""Folders of runs -> their scores, as the leaderboard shows them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...model.json_fields import read_json
from ..runs.evaluation_folder import SUMMARY, read_run
from .leaderboard import OwnRun, OwnScore

_PARTS = {"MMMU_DEV_VAL": ("validation", "val")}  # the published score is of that part alone
_JUDGED = ("MathVista_MINI", "MMVet")  # published with a judge model


def read_own_run(folder: Path) -> OwnRun:
    """The scores of a run.

    Raises:
        FileNotFoundError: no run, or one that has not come to a summary.
        ValueError: a damaged summary.
    """
    run = read_run(folder)
    if run is None or not (folder / SUMMARY).is_file():
        raise FileNotFoundError(f"{folder} has no {SUMMARY}; run the evaluation to its end first")
    summary = read_json(folder / SUMMARY)
    try:
        scores = {}
        for name, figures in summary["sets"].items():
            score = _own_score(name, figures, bool(summary["complete"]))
            if score is not None:
                scores[name] = score
        return OwnRun(folder.resolve().name, str(run["protocol"]), str(run["dtype"]), scores)
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{folder / SUMMARY} is damaged; run the evaluation again to write it anew") from None


def _own_score(name: str, figures: Mapping[str, Any], is_complete: bool) -> OwnScore | None:
    part = next((figures["splits"][part] for part in _PARTS.get(name, ()) if part in figures["splits"]), figures)
    if part["score"] is None:
        return None
    notes = []
    if not is_complete:
        notes.append("the run is not complete")
    if name in _JUDGED:
        notes.append("scored by rules, the published one by a judge model")
    if part is figures and name in _PARTS:
        notes.append("not the val part alone")
    low, high = part["interval"]
    return OwnScore(float(part["score"]), float(low), float(high), int(part["scored"]), "; ".join(notes))
