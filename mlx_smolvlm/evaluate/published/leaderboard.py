"""The published scores of the family beside a user's own: as text in columns."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .published_scores import BENCHMARKS, MODELS, PUBLISHED, PublishedScore

_UNSURE = "?"
_OURS = "vlmevalkit"


@dataclass(frozen=True)
class OwnScore:
    """A user's score of one set.

    Attributes:
        score: percent.
        low, high: ends of its interval.
        count: rows.
        note: how it differs from what was published; empty if it does not.
    """

    score: float
    low: float
    high: float
    count: int
    note: str = ""


@dataclass(frozen=True)
class OwnRun:
    """A user's run.

    Attributes:
        name: what its column is called.
        protocol: "vlmevalkit" or "chat".
        dtype: the type of numbers that it was computed in.
        scores: VLMEvalKit's name of a set -> its score.
    """

    name: str
    protocol: str
    dtype: str
    scores: dict[str, OwnScore] = field(default_factory=dict)


def leaderboard_text(runs: Sequence[OwnRun] = ()) -> str:
    """The table: a row per benchmark, a column per published model and per run, and notes.

    What is unsure is marked "?", and so is a run's figure that another protocol or number type gave than the published
    ones; the notes say why. Sets of a run that the table does not have are named.
    """
    table = [["", *MODELS, *(run.name for run in runs)]]
    notes: dict[str, list[str]] = {}
    for benchmark in BENCHMARKS:
        cells = [benchmark.name]
        for model in MODELS:
            score = _of(benchmark.name, model)
            cells.append("-" if score is None else f"{score.score:g}{'' if score.is_sure else _UNSURE}")
            if score is not None and score.note:
                notes.setdefault(score.note, []).append(f"{benchmark.name}, {model}")
        for run in runs:
            own = next((run.scores[name] for name in benchmark.sets if name in run.scores), None)
            mark = "" if own is None or (_is_like_published(run) and not own.note) else _UNSURE
            cells.append("-" if own is None else f"{own.score:.1f}{mark} ({own.low:.1f}-{own.high:.1f})")
        table.append(cells)
    return "\n".join([*_columns(table), "", *_notes(notes), *_notes_of_runs(runs)])


def _of(benchmark: str, model: str) -> PublishedScore | None:
    return next((score for score in PUBLISHED if (score.benchmark, score.model) == (benchmark, model)), None)


def _is_like_published(run: OwnRun) -> bool:
    return run.protocol == _OURS and run.dtype == "float32"


def _columns(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[number]) for row in table) for number in range(len(table[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in table]


def _notes(notes: dict[str, list[str]]) -> list[str]:
    lines = [
        "Published with VLMEvalKit: raw prompts, float32, greedy, at most 2048 tokens. Versions of the suite differ."
    ]
    sources = dict.fromkeys(score.source for score in PUBLISHED)
    for source in sources:
        models = dict.fromkeys(score.model for score in PUBLISHED if score.source == source)
        lines.append(f"from {source}: {', '.join(models)}")
    lines.append(f"{_UNSURE} unsure:" if notes else "")
    for note, places in notes.items():
        what = "; ".join(places) if len(places) <= 4 else f"{len(places)} figures"
        lines.append(f"  {note}: {what}")
    measures = (f"{benchmark.name}: {benchmark.measure}" for benchmark in BENCHMARKS)
    return [*lines, f"measures: {'; '.join(measures)}"]


def _notes_of_runs(runs: Sequence[OwnRun]) -> list[str]:
    known = {name for benchmark in BENCHMARKS for name in benchmark.sets}
    lines = []
    for run in runs:
        counts = ", ".join(
            f"{name} {own.count} rows{f' ({_UNSURE}: {own.note})' if own.note else ''}"
            for name, own in run.scores.items()
            if name in known
        )
        others = ", ".join(sorted(run.scores.keys() - known))
        line = f"{run.name}: protocol {run.protocol}, {run.dtype}"
        if not _is_like_published(run):
            line += f" ({_UNSURE}: the published ones are {_OURS} in float32)"
        lines.append(f"{line}; {counts or 'no published set'}" + (f"; not published: {others}" if others else ""))
    return lines
