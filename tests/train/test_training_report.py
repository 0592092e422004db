"""What a run leaves for people and programs: metrics line by line, curves, and a page of its own."""

import json
import xml.etree.ElementTree as ElementTree

import pytest

from mlx_smolvlm.train.reports.curves import HEIGHT, MOST_POINTS, WIDTH, curves_svg
from mlx_smolvlm.train.reports.metrics_log import MetricsLog
from mlx_smolvlm.train.reports.training_report import HeldAnswer, write_report


def test_metrics_go_on_where_the_run_does(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        log.add({"step": step, "loss": 4.0 - step})
    with log.path.open("a") as file:
        file.write('{"step": 4, "lo')  # killed while it was written
    assert MetricsLog(log.path, 9).records == log.records
    again = MetricsLog(log.path, 2)
    again.add({"step": 3, "loss": 0.5})
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert lines == again.records == [*log.records[:2], {"step": 3, "loss": 0.5}]


def points_of(svg):
    root = ElementTree.fromstring(svg)
    return [
        [tuple(map(float, pair.split(","))) for pair in line.get("points").split()] for line in root.iter("polyline")
    ]


def test_curves_lie_within_the_frame_and_long_ones_are_thinned():
    (first, second) = points_of(curves_svg("Loss <x>", {"a": [(0, 1.0), (10, 3.0)], "b": [(0, 3.0), (10, 1.0)]}))
    assert (first[0][1], first[1][1]) == (second[1][1], second[0][1])
    assert first[0][1] > first[1][1]  # SVG counts downwards
    (line,) = points_of(curves_svg("Loss", {"a": [(step, float(step % 7)) for step in range(10_000)]}))
    assert len(line) <= MOST_POINTS
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in line)
    assert len(points_of(curves_svg("Loss", {"a": [(1, 2.0)], "none": []}))) == 1
    assert curves_svg("Loss", {"none": []}) == ""
    assert len(points_of(curves_svg("Rate", {"a": [(1, 1e300)]}))) == 1


def test_the_report_is_one_file_that_replaces_only_its_own_kind(tmp_path):
    target = tmp_path / "report.html"
    records = [
        {"step": 1, "loss": 2.0, "learning_rate": 0.1},
        {"step": 2, "loss": float("nan")},
        {"step": 2, "validation_loss": 1.5},
    ]
    sample = HeldAnswer("rows.jsonl:1", "<b>What?", "Red.", ["data:image/jpeg;base64,AA=="], [(0, "x & y")])
    for _ in range(2):
        write_report(target, "Run", {"model": "<demo>"}, records, [sample])
    text = target.read_text(encoding="utf-8")
    for part in (
        "&lt;demo&gt;",
        "&lt;b&gt;What?",
        "x &amp; y",
        'src="data:image/jpeg;base64,AA=="',
        "validation</text>",
    ):
        assert part in text
    assert "script" not in text
    assert "://" not in text
    target.write_text("mine")
    with pytest.raises(FileExistsError, match="is no report of a training run"):
        write_report(target, "Run", {}, records)
