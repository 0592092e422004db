"""What was measured, as a table, JSON and a plot.

JSON: `format` (1), `machine`, `settings`, `measurements` and `comparisons`; the fields of the last two are those
of `Measurement` and `PeerComparison`, with `median` and `ratio`.
"""

import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx

from .. import __version__
from ..command_line.drawings import figure_class, write_drawing
from ..command_line.progress import counted
from ..files import refuse_foreign
from .benchmark_run import BenchmarkRun
from .measurement import Measurement, PeerComparison

FORMAT = 1


def machine() -> dict[str, Any]:
    """What the figures depend on, and nothing that names its owner."""
    facts = mx.device_info() if mx.default_device() == mx.gpu else {}
    return {
        "system": f"{platform.system()} {platform.release()}",
        "chip": facts.get("device_name") or _processor_name(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "device": "gpu" if mx.default_device() == mx.gpu else "cpu",
        "python": platform.python_version(),
        "mlx": version("mlx"),
        "mlx_smolvlm": __version__,
        "openblas_preloaded": "openblas" in os.environ.get("LD_PRELOAD", ""),
    }


def _processor_name() -> str:
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def json_report(
    run: BenchmarkRun, measurements: list[Measurement], comparisons: list[PeerComparison]
) -> dict[str, Any]:
    """The whole report."""
    model = run.settings.model or "random weights"
    settings = asdict(run.settings) | {"model": Path(model).name if Path(model).expanduser().is_dir() else model}
    settings["adapters"] = [f"{Path(path).name}={weight:g}" for path, weight in run.settings.adapters]
    if run.settings.video:
        settings["video"] = Path(run.settings.video).name
    return {
        "format": FORMAT,
        "machine": machine(),
        "settings": settings,
        "measurements": [asdict(found) | {"median": found.median} for found in measurements],
        "comparisons": [asdict(found) | {"ratio": found.ratio} for found in comparisons],
    }


def table(report: dict[str, Any]) -> str:
    """For people: medians with the least and the most of the runs."""
    facts, settings = report["machine"], report["settings"]
    model = settings["model"] if settings["model"] != "random weights" else f"{settings['geometry']}, random weights"
    bits = f", {settings['bits']} bits" if settings["bits"] else ""
    model = " + ".join([model, *settings["adapters"]])
    lines = [
        f"{facts['chip']}, {facts['device']}, {facts['memory_bytes'] / 2**30:.0f} GiB, mlx {facts['mlx']}",
        f"{model}, {settings['dtype']}{bits}, {counted(settings['runs'], 'run')}: median (least to most)",
        "",
    ]
    rows = [
        (found["section"], found["name"], _spread(found["values"], found["unit"]), found["note"])
        for found in report["measurements"]
    ]
    rows += [
        (found["section"], f"{found['name']} / {found['peer']}", _against(found), found["note"])
        for found in report["comparisons"]
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)] if rows else [0, 0, 0]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join([*cells, row[3]]).rstrip())
    return "\n".join(lines)


def _spread(values: list[float], unit: str) -> str:
    ordered = sorted(values)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    spread = f" ({_number(ordered[0])} to {_number(ordered[-1])})" if len(ordered) > 1 else ""
    return f"{_number(middle)} {unit}".rstrip() + spread


def _against(found: dict[str, Any]) -> str:
    if not found["theirs"]:
        return "failed"
    own, theirs = (_spread(found[side], found["unit"]) for side in ("own", "theirs"))
    return f"{found['ratio']:.2f}: {own} / {theirs}"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def write_report_plot(report: dict[str, Any], path: Path) -> None:
    """Ratios to the peers as bars, and first-token times against size, as far as they were measured.

    Raises:
        ValueError: neither was measured, or a kind of file that cannot be drawn.
        ModuleNotFoundError: no matplotlib.
    """
    ratios = [found for found in report["comparisons"] if found["ratio"]]
    sizes = [found for found in report["measurements"] if found["section"] == "size" and "first token" in found["name"]]
    series = {
        unit: [(int(found["name"].split()[0]), found["median"]) for found in sizes if f" {unit}:" in found["name"]]
        for unit in ("pictures", "tokens")
    }
    panels = [("ratios", ratios), *((unit, points) for unit, points in series.items())]
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        raise ValueError("nothing to draw: compare with peers (--against), or measure sizes (--only size)")
    figure = figure_class()(figsize=(6 * len(panels), 4), layout="constrained")
    for axes, (kind, found) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        if kind == "ratios":
            names = [f"{each['name']} / {each['peer']}, {each['unit']}" for each in found]
            more_is_better = [each["unit"].endswith("/s") for each in found]
            gains = [each["ratio"] ** (1 if more else -1) for each, more in zip(found, more_is_better, strict=True)]
            axes.barh(names, gains)
            axes.axvline(1, color="black", linewidth=1)
            axes.invert_yaxis()
            axes.set_xlabel("times better than the peer")
        else:
            axes.plot(*zip(*found, strict=True), marker="o")
            axes.set_xlabel(kind)
            axes.set_ylabel("time to the first token, s")
            axes.set_ylim(bottom=0)
    write_drawing(figure, path)


def check_report_target(path: Path) -> None:
    """Raise FileExistsError if a report in JSON would replace a file that is none."""
    refuse_foreign(path, _is_report, "report of this benchmark")


def _is_report(path: Path) -> bool:
    try:
        report = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(report, dict) and {"format", "machine", "measurements", "comparisons"} <= report.keys()
