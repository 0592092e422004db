"""The figures of a checkpoint: as a table, as `quality.json` in its folder, and as a plot."""

from pathlib import Path
from typing import Any

from ..command_line.drawings import check_plot, figure_class, write_drawing
from ..files import whole_file, write_json
from ..model.json_fields import read_json
from .compare import Comparison

QUALITY = "quality.json"
OTHER_MEASURES = "other_measures"
_SHOWN_LAYERS = 5
_PALETTE = ("#3b6ea5", "#c4622d")


def quality_json(comparison: Comparison, data: str, command: str, dtype: str = "float32") -> dict[str, Any]:
    """All of a comparison: numbers and short texts first, then lists and layers."""
    return {
        **comparison.summary(),
        "measured_on": data,
        "computed_in": dtype,
        "command": command,
        "kl_by_position": comparison.kl_by_position,
        "layer_errors": dict(comparison.worst_layers),
    }


def write_quality(folder: Path, quality: dict[str, Any]) -> list[str]:
    """Write `quality.json`, whole or not at all, beside the measures that are in it; returns the names of the others.

    The measure on the most answer tokens stands at the top level, all others by name under OTHER_MEASURES. One of the
    same name is replaced.

    Raises:
        ValueError: the file that is there is none of these.
    """
    path = folder / QUALITY
    measures = _measures(read_json(path), path) if path.is_file() else {}
    name = measure_name(quality)
    measures = {name: quality} | {key: measure for key, measure in measures.items() if key != name}
    best = max(measures, key=lambda key: int(measures[key]["num_answer_tokens"]))  # the newest of equal ones
    others = {key: measure for key, measure in measures.items() if key != best}
    with whole_file(path) as new:
        write_json(new, measures[best] | ({OTHER_MEASURES: others} if others else {}))
    return [key for key in measures if key != name]


def measure_name(quality: dict[str, Any]) -> str:
    """What tells measures apart: samples, reference, and the type of numbers."""
    count = quality["num_samples"]
    name = f"{quality['measured_on']}, {count} sample{'s' * (count != 1)}, against {quality['reference']}"
    dtype = quality.get("computed_in", "float32")
    return name if dtype == "float32" else f"{name}, in {dtype}"


def _measures(content: dict[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """What a `quality.json` holds, by name."""
    others = content.pop(OTHER_MEASURES, {})
    try:
        measures = [content, *others.values()]
        if not all(isinstance(measure["num_answer_tokens"], int) for measure in measures):
            raise TypeError
        return {measure_name(measure): measure for measure in measures}
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is no report of this command; move it away") from None


def quality_text(quality: dict[str, Any]) -> str:
    """The measures as text, in columns."""

    def row(name: str, *cells: str) -> str:
        return f"{name:<22}" + "".join(f"{cell:>16}" for cell in cells).rstrip()

    def both(name: str, key: str, number_format: str, unit: float = 1.0) -> str:
        return row(name, *(format(quality[prefix + key] / unit, number_format) for prefix in ("reference_", "")))

    lines = [
        f"reference: {quality['reference']}",
        f"candidate: {quality['candidate']}",
        f"measured on {quality['measured_on']}: {quality['num_samples']} samples, "
        f"{quality['num_answer_tokens']} answer tokens",
        "",
        row("", "reference", "candidate"),
        both("size, MB", "size_bytes", ".1f", 1e6),
        both("bits per weight", "bits_per_weight", ".2f"),
        both("perplexity", "perplexity", ".5g"),
        "",
        row("KL divergence, nats", "mean", "p99", "1st token", "2nd-8th", "later"),
        row("", f"{quality['kl_mean']:.6f}", f"{quality['kl_p99']:.6f}", *_by_position(quality["kl_by_position"])),
        row("top-1 agreement", f"{quality['top_1_agreement']:.1%}"),
        row("greedy agreement", f"{quality['greedy_agreement']:.1%}"),
        "",
        f"worst layer: {quality['worst_layer']}, {quality['worst_layer_error']:.1%} off",
    ]
    if "mini_score" in quality:
        lines[-2:-2] = ["", *_mini_lines(quality)]
    others = list(quality["layer_errors"].items())[1:_SHOWN_LAYERS]
    lines += [f"       then: {path}, {error:.1%} off" for path, error in others if error > 0]
    return "\n".join(lines)


def _mini_lines(quality: dict[str, Any]) -> list[str]:
    """Scores on the mini suite, with their intervals, and which answers changed."""
    scores = [
        f"{quality[prefix + 'mini_score']:.1f} ({low:.0f}-{high:.0f})"
        for prefix in ("reference_", "")
        for low, high in [quality[prefix + "mini_interval"]]
    ]
    return [
        f"{'mini suite, of 100':<22}" + "".join(f"{score:>16}" for score in scores),
        f"{'':<22}{quality['mini_rows']} rows: {quality['mini_same_answers']:.0%} of answers the same, "
        f"{quality['mini_lost']} right ones lost, {quality['mini_won']} won (p {quality['mini_p']:.2g})",
    ]


def _by_position(kl: list[float]) -> list[str]:
    """Means over ranges of positions, as the table has them."""
    ranges = (kl[:1], kl[1:8], kl[8:])
    return [f"{sum(part) / len(part):.6f}" if part else "-" for part in ranges]


def write_plot(quality: dict[str, Any], file: Path) -> None:
    """Draw divergence by position and error by layer; the file's ending says in which format.

    Raises:
        as `check_plot`.
    """
    check_plot(file)
    figure = figure_class()(figsize=(10, 7), layout="constrained")
    above, below = figure.subplots(2, 1)
    kl, errors = quality["kl_by_position"], quality["layer_errors"]
    above.plot(range(1, len(kl) + 1), kl, color=_PALETTE[0], marker=".")
    above.set(xlabel="token of the answer", ylabel="KL divergence, nats", title=_title(quality))
    names = sorted(errors, key=_natural_order)
    worst = quality["worst_layer"]
    below.bar(range(len(names)), [errors[name] for name in names], width=1.0, color=_PALETTE[0])
    below.bar([names.index(worst)], [errors[worst]], width=1.0, color=_PALETTE[1], label=worst)
    below.set(xlabel="layer, from images to answers", ylabel="relative error of its output")
    below.legend(frameon=False)
    write_drawing(figure, file)


def _title(quality: dict[str, Any]) -> str:
    names = (Path(quality[key]).name for key in ("candidate", "reference"))
    return f"{' against '.join(names)}: KL {quality['kl_mean']:.5f}, greedy {quality['greedy_agreement']:.1%}"


def _natural_order(path: str) -> tuple[int, list[tuple[int, str]]]:
    """Vision, connector, decoder; layers by number."""
    part = ("vision_model", "connector", "language_model").index(path.split(".")[0])
    return part, [(int(key), "") if key.isdecimal() else (-1, key) for key in path.split(".")]
