"""`--compare`: figures of two runs on the same rows; runs of other rows are refused."""

import json

import pytest
from support.command_lines import assert_refused, run


def result(index, answer, *, right, row="r", category="a", tokens=(1, 2, 3)):
    return {
        "dataset": "x",
        "index": index,
        "row": row,
        "category": category,
        "prompt": "p",
        "token_ids": list(tokens),
        "answer": answer,
        "expected": "yes",
        "score": float(right),
        "finish_reason": "stop",
    }


def write_run(folder, results):
    folder.mkdir()
    settings = {"format": "mlx-smolvlm evaluation 1", "model": folder.name, "dtype": "float32", "protocol": "chat"}
    (folder / "run.json").write_text(json.dumps(settings), encoding="utf-8")
    lines = "".join(json.dumps(result) + "\n" for result in results)
    (folder / "results.jsonl").write_text(lines, encoding="utf-8")
    return folder


@pytest.fixture
def runs(tmp_path):
    a = [result(number, "yes", right=True, category="ab"[number % 2]) for number in range(10)]
    b = [dict(line) for line in a]
    for number in (1, 3, 5):
        b[number] |= {"answer": "no", "score": 0.0, "token_ids": [1, 9]}
    return write_run(tmp_path / "a", a), write_run(tmp_path / "b", b)


def test_figures_and_flips(monkeypatch, capsys, tmp_path, runs):
    out = tmp_path / "out"
    found = run(monkeypatch, capsys, "evaluate", "--compare", *runs, "--out", out, "--quiet")
    assert found.status == 0, found.err
    assert "100.00 and 70.00, -30.00" in found.out
    record = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    assert (record["first_only"], record["second_only"], record["p"]) == (3, 0, 0.25)
    assert record["tokens"] == {"identical": 0.7, "agreement": pytest.approx(0.8)}  # 1 of 3 tokens in three rows
    assert [flip["index"] for flip in record["flips"]] == [1, 3, 5]
    assert [(part["category"], part["difference"]) for part in record["categories"]] == [("a", 0.0), ("b", -60.0)]
    assert (out / "comparison.html").read_text(encoding="utf-8").count("class='row wrong'") == 3


def test_a_run_with_itself_has_no_flips(monkeypatch, capsys, runs):
    found = run(monkeypatch, capsys, "evaluate", "--compare", runs[0], runs[0])
    assert "; 0 flips\n" in found.out
    assert "tokens identical in 100.0% of rows" in found.out


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda lines: [lines[1], lines[0], *lines[2:]], "line 1 of"),
        (lambda lines: [{**lines[0], "row": "other"}, *lines[1:]], "another question, answer or image"),
        (lambda lines: lines[:-1], "has 10 rows and"),
        (lambda lines: [{"dataset": "x", "index": 0}, *lines[1:]], "line 1 is damaged"),
    ],
)
def test_runs_of_other_rows_are_refused(monkeypatch, capsys, tmp_path, runs, change, problem):
    lines = [json.loads(line) for line in (runs[0] / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    other = write_run(tmp_path / "other", change(lines))
    assert_refused(run(monkeypatch, capsys, "evaluate", "--compare", runs[0], other), problem)


def test_runs_that_were_stopped_are_refused(monkeypatch, capsys, runs):
    settings = json.loads((runs[0] / "run.json").read_text(encoding="utf-8")) | {"rows": 11}
    for folder in runs:
        (folder / "run.json").write_text(json.dumps(settings), encoding="utf-8")
    assert_refused(run(monkeypatch, capsys, "evaluate", "--compare", *runs), "have 10 of 11 rows")


def test_what_is_no_run_is_refused(monkeypatch, capsys, tmp_path, runs):
    assert_refused(run(monkeypatch, capsys, "evaluate", "--compare", runs[0], tmp_path / "gone"), "is no run")
    assert_refused(
        run(monkeypatch, capsys, "evaluate", "x.tsv", "--compare", *runs), "does nothing else; leave DATA out"
    )
    (tmp_path / "comparison.json").write_text("mine", encoding="utf-8")
    refused = run(monkeypatch, capsys, "evaluate", "--compare", *runs, "--out", tmp_path)
    assert "is no comparison" in refused.err
