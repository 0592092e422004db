"""`evaluate mini`, `--make`, `--leaderboard` and `--known-answers` on the command line."""

import json

import pytest
from support.command_lines import assert_refused, run

from mlx_smolvlm import DEMO_MODEL
from mlx_smolvlm.convert import QuantizationOptions, convert_checkpoint
from mlx_smolvlm.evaluate.runs.run_comparison import compare_runs


@pytest.fixture
def evaluate(monkeypatch, capsys):
    """A function from options to the run's result."""
    return lambda *options: run(monkeypatch, capsys, "evaluate", *options)


@pytest.fixture(scope="module")
def ran(tmp_path_factory, demo):
    """The folder of a run over eight easy rows and two clips, which the demo model answers."""
    from _pytest.monkeypatch import MonkeyPatch

    out = tmp_path_factory.mktemp("run") / "out"
    with MonkeyPatch.context() as patch:
        patch.setattr(
            "sys.argv", ["evaluate", "mini", "--mini-categories", "basic", "--mini-rows", "8", "--out", str(out)]
        )
        from mlx_smolvlm.evaluate.__main__ import main

        with pytest.raises(SystemExit) as exited:
            main()
    assert exited.value.code == 0
    return out


def test_the_demo_model_answers_the_basic_categories(ran):
    """Easy rows are of the world that it was trained on."""
    summary = json.loads((ran / "summary.json").read_text(encoding="utf-8"))
    figures = summary["sets"]["mini"]
    assert (summary["complete"], summary["run"]["protocol"], summary["run"]["max_tokens"]) == (True, "chat", 64)
    assert figures["n"] == 8 and figures["score"] >= 75 and figures["unmatched"] == 0
    assert set(figures["splits"]) == {"1 easy"} and len(figures["categories"]) == 8
    results = [json.loads(line) for line in (ran / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    described = next(result for result in results if result["category"] == "description")
    assert described["extracted"].count(", ") == 2 and len(described["expected"]) == 3


def test_a_run_goes_on_with_the_suite_that_it_made(ran, evaluate):
    before = (ran / "results.jsonl").read_bytes()
    options = ("mini", "--mini-categories", "basic", "--out", ran)
    assert evaluate(*options, "--mini-rows", "8", "--quiet").status == 0
    assert (ran / "results.jsonl").read_bytes() == before
    assert_refused(evaluate(*options, "--mini-rows", "9"), "name another folder by --out")


def test_make_writes_the_suite_alone(evaluate, tmp_path):
    out = tmp_path / "made"
    made = evaluate("mini", "--make", out, "--mini-rows", "2")
    assert made.status == 0 and len((out / "mini.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    assert_refused(evaluate("mini", "--make", out), "exists already")
    assert_refused(evaluate("mini", "x.tsv", "--make", tmp_path / "other"), "name mini and no other DATA")
    assert_refused(evaluate("x.tsv", "--make", tmp_path / "other"), "add mini")


def test_prompts_of_the_suite_can_be_listed(evaluate):
    listed = evaluate("mini", "--mini-rows", "2", "--print-prompts", "--protocol", "vlmevalkit")
    assert [json.loads(line)["dataset"] for line in listed.out.splitlines()] == ["mini", "mini"]


def test_the_leaderboard_shows_runs(ran, evaluate):
    assert evaluate("--leaderboard").out.splitlines()[1].split()[:2] == ["MMMU", "val"]
    shown = evaluate("--leaderboard", ran).out
    assert "out: protocol chat, float32" in shown and "not published: mini" in shown
    assert_refused(evaluate("--leaderboard", ran.parent), "is no run")


def test_known_answers_set_the_exit_status(evaluate, tmp_path):
    record = {"model": "x/model", "name": "text", "prompt": "<|im_start|>User: Hello", "image_tokens": 0}
    path = tmp_path / "known.json"
    for image_tokens, status in ((0, 0), (1, 1)):
        path.write_text(json.dumps([record | {"image_tokens": image_tokens}]), encoding="utf-8")
        folder = tmp_path / "model"
        folder.is_symlink() or folder.symlink_to(DEMO_MODEL)
        checked = evaluate("--known-answers", path, "--model", folder)
        assert checked.status == status, checked
        assert checked.out.splitlines()[-1] == f"{1 - status} of 1 hold"
        assert "Device(" in checked.out
    assert_refused(evaluate("--known-answers", tmp_path / "none.json"), "none.json")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--leaderboard", "--known-answers"), "--leaderboard does nothing else; leave --known-answers out"),
        (("--compare", "x", "y", "--model", "z"), "--compare does nothing else; leave --model out"),
        (("--leaderboard", "--limit", "3"), "leave --limit out"),
        (("--known-answers", "--adapter-path", "y"), "leave --adapter-path out"),
        (("mini", "--make", "x", "--out", "y"), "--make does nothing else; leave --out out"),
        (("x.tsv", "--mini-rows", "3", "--out", "y"), "--mini-rows: the mini suite is not among DATA"),
        (("mini", "--mini-rows", "0", "--out", "y"), "--mini-rows is 0"),
        (("mini", "--mini-categories", "colour", "--out", "y"), "--mini-categories has 'colour'"),
        (("--known-answers", "--out", "y"), "leave --out out"),
    ],
)
def test_what_has_no_meaning_together_is_refused(evaluate, options, problem):
    assert_refused(evaluate(*options), problem)


def test_a_comparison_is_not_written_in_a_file(evaluate, tmp_path):
    (tmp_path / "x").touch()
    assert_refused(evaluate("--compare", "a", "b", "--out", tmp_path / "x"), "is no folder")


@pytest.mark.slow
def test_scores_fall_with_the_bits(evaluate, trained_checkpoint, tmp_path):
    """Of the demo model in float32 and in 2 bits; the embedded one, in 4 bits, is in between in docs/evaluation.md."""
    two_bits = tmp_path / "two"
    convert_checkpoint(trained_checkpoint, two_bits, quantization=QuantizationOptions(bits=2))
    for path, name in ((trained_checkpoint, "full"), (two_bits, "two-bits")):
        options = ("--mini-categories", "basic", "--mini-rows", "480", "--out", tmp_path / name, "--quiet")
        assert evaluate("mini", "--model", path, "--dtype", "float32", *options).status == 0
    compared = compare_runs(tmp_path / "full", tmp_path / "two-bits")
    assert compared["difference"] < 0 and compared["interval"][1] < 0 and compared["p"] < 0.05
