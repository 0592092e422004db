"""Figures of whole sets, by hand, and the speed of batches."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import mlx_smolvlm
from mlx_smolvlm.benchmark.geometries import GEOMETRIES, make_checkpoint
from mlx_smolvlm.evaluate.data.eval_rows import EvalRow, ImageRef
from mlx_smolvlm.evaluate.data.row_files import read_rows
from mlx_smolvlm.evaluate.prompts.row_prompts import VLMEVALKIT, wrapper_for
from mlx_smolvlm.evaluate.runs.eval_run import Asking, EvalRun
from mlx_smolvlm.evaluate.runs.summary import summarize, summary_text
from mlx_smolvlm.evaluate.scoring.set_metrics import set_metrics

ROW = EvalRow(index=1, dataset="x", question="Q")
RUN = {"model": "m", "dtype": "float32", "protocol": "vlmevalkit", "wrapper": "smolvlm2"}


def result(score, extracted=None, **fields):
    return {"score": score, "extracted": extracted, "matched": True, "finish_reason": "stop", "scorer": "s", **fields}


def test_mme_counts_questions_and_images():
    rows = [
        replace(ROW, index=number, category="OCR", images=[ImageRef(f"{number // 2}.png", "")]) for number in range(4)
    ]
    pairs = list(zip(rows, map(result, (1.0, 1.0, 1.0, 0.0)), strict=True))
    assert set_metrics("MME", pairs) == {"perception": 125.0, "reasoning": 0, "OCR": 125.0}  # 3 of 4, and 1 of 2


def test_hallusion_counts_figures_and_questions():
    indices = ["VS_chart_0_1_0_0", "VS_chart_0_1_0_1", "VS_chart_0_1_1_0", "VS_chart_0_1_1_1"]
    rows = [replace(ROW, index=index) for index in indices]
    found = set_metrics("HallusionBench", list(zip(rows, map(result, (1.0, 1.0, 0.0, 1.0)), strict=True)))
    assert found == {"aAcc": 75.0, "fAcc": 50.0, "qAcc": 50.0}
    assert set_metrics("HallusionBench", [(ROW, result(1.0))]) == {}  # an index that names no figure


def test_pope_counts_every_other_answer_as_no():
    rows = [replace(ROW, index=number, answer=answer) for number, answer in enumerate(("Yes", "Yes", "No", "No"))]
    said = [result(1.0, "Yes"), result(0.0), result(0.0, "Yes"), result(1.0, "No")]
    assert set_metrics("POPE", list(zip(rows, said, strict=True))) == {"f1": 50.0, "precision": 50.0, "recall": 50.0}


def test_circular_sets_want_every_order_right():
    rows = [replace(ROW, index=index) for index in (1, 1_000_001, 2_000_001, 2, 1_000_002)]
    pairs = list(zip(rows, map(result, (1.0, 1.0, 0.0, 1.0, 1.0)), strict=True))
    assert set_metrics("MMBench_DEV_EN", pairs) == {"circular": 50.0}


def test_rows_that_cannot_be_scored_do_not_count_and_failures_do():
    rows = [replace(ROW, index=number, category=name) for number, name in enumerate(("a", "a", "b"))]
    lines = [result(1.0), result(None), result(0.0, finish_reason="error", matched=False)]
    results = [{**line, "dataset": "x", "index": number} for number, line in enumerate(lines)]
    figures = summarize(rows, results, RUN)["sets"]["x"]
    assert (figures["n"], figures["scored"], figures["score"], figures["failed"]) == (3, 2, 50.0, 1)
    assert figures["unmatched"] == 0.5
    assert figures["categories"]["a"]["score"] == 100.0
    text = summary_text(summarize(rows, results[:2], RUN))
    assert "x: 100.00 (95 %: 20.7 to 100.0), 1 row of 2, 0.0% matched nothing (s)" in text
    assert text.endswith("\n  a: 100.00 (95 %: 20.7 to 100.0), 1 row of 2")
    assert not summarize(rows, results[:2], RUN)["complete"]


@pytest.mark.slow
def test_batches_take_less_than_half_the_processor_time(tmp_path):
    """On a checkpoint of the 256M's depth with hardly any arithmetic; answers are the same."""
    folder = make_checkpoint(GEOMETRIES["overhead"], "float32", Path(tmp_path / "model"))
    model, processor = mlx_smolvlm.load(folder, dtype="float32")
    Image.effect_noise((320, 20), 60).convert("RGB").save(tmp_path / "noise.png")
    rows = [{"question": f"What is number {number}?", "images": ["noise.png"]} for number in range(64)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = read_rows([tmp_path / "x.jsonl"]).rows
    seconds, answers = {}, {}
    for size in (32, 1):
        asking = Asking(VLMEVALKIT, wrapper_for(None, None), max_tokens=64, batch_size=size)
        start = time.process_time()
        answers[size] = [line for line, _ in EvalRun(model, processor, asking).results(found)]
        seconds[size] = time.process_time() - start
    assert answers[1] == answers[32]
    assert seconds[1] > 2 * seconds[32], seconds
