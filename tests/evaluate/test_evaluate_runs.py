"""Runs: results in the order of the data, resumed to the byte, each failed row named."""

import base64
import io
import json
import os
import sys
from importlib import import_module

import pytest
from PIL import Image, ImageDraw
from support.command_lines import MODULES, assert_refused, run
from support.layout import ROOT

from mlx_smolvlm.evaluate.runs.evaluation_folder import read_run

DEMO = ROOT / "mlx_smolvlm" / "demo"
COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 160, 60)}


def shape(number, colour):
    image = Image.new("RGB", (96 + 8 * number, 96), "white")
    draw = ImageDraw.Draw(image).ellipse if number % 2 else ImageDraw.Draw(image).rectangle
    draw([24, 24, 72, 72], fill=COLOURS[colour])
    return image


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Ten rows about shapes, and one for each way in which a row can fail."""
    folder = tmp_path_factory.mktemp("shapes")
    rows = []
    for number in range(10):
        colour = list(COLOURS)[number % 3]
        shape(number, colour).save(folder / f"{number}.png")
        answer = f"A {'circle' if number % 2 else 'square'}."
        rows.append(
            {"question": "What shape is it?", "images": [f"{number}.png"], "answer": answer, "category": colour}
        )
    (folder / "noise.png").write_bytes(b"no image")
    rows += [
        {"question": "What <image> is it?", "images": ["1.png"], "answer": "x"},
        {"question": "Gone?", "images": ["gone.png"], "answer": "x"},
        {"question": "Noise?", "images": ["noise.png"], "answer": "x"},
        {"question": "None?", "answer": "x"},
        {"question": "Which way does it move?", "video": str(DEMO / "clip.mp4"), "dataset": "MVBench_64frame"},
        {"question": "Which way?", "video": str(DEMO / "clip.mp4"), "answer": "x"},
        {"question": "Which way?", "frames": 3, "answer": "x"},
        {"question": "What is it?", "images": ["1.png"]},
    ]
    path = folder / "shapes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def evaluate(monkeypatch, capsys, *arguments):
    return run(monkeypatch, capsys, "evaluate", *arguments, "--max-tokens", "12", "--quiet")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    words = ["evaluate", str(data), "--out", str(folder), "--max-tokens", "12", "--quiet"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            import_module(MODULES["evaluate"]).main()
    assert ended.value.code == 1  # rows failed
    return folder


def lines(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def test_rows_are_scored_and_failures_named(whole):
    found = lines(whole)
    assert [result["index"] for result in found] == list(range(1, 19))
    assert sum(result["score"] for result in found[:10]) >= 8
    assert found[0]["token_ids"][-1] == 42
    assert found[0]["prompt"] == "<|im_start|>User:<image>What shape is it?<end_of_utterance>\nAssistant:"
    problems = {result["index"]: result["error"] for result in found if result["error"]}
    for index, problem in {
        11: "2 <image> markers but 1 image",
        12: "no such file",
        13: "noise.png",
        14: "has no image and no video",
        15: "has no candidates",
        16: "the prompt has 2187 tokens and the model's context is 2048",
        17: "frames only says how many there are",
        18: "has no answer to compare with",
    }.items():
        assert problem in problems.pop(index)
    assert not problems
    summary = json.loads((whole / "summary.json").read_text(encoding="utf-8"))
    figures = summary["sets"]["shapes"]
    assert (summary["complete"], figures["n"], figures["failed"]) == (True, 17, 6)
    assert set(figures["categories"]) == {"red", "blue", "green", "none"}
    page = (whole / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 3
    assert "data:image/jpeg;base64," in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")


def test_neither_batch_size_nor_being_killed_changes_a_byte(monkeypatch, capsys, data, whole, tmp_path):
    one, cut = tmp_path / "one", tmp_path / "cut"
    evaluate(monkeypatch, capsys, data, "--out", one, "--batch-size", "1")
    expected = (whole / "results.jsonl").read_bytes()
    assert (one / "results.jsonl").read_bytes() == expected
    cut.mkdir()
    for name in ("run.json", "timings.jsonl"):
        (cut / name).write_bytes((whole / name).read_bytes())
    place = expected.index(b"\n", len(expected) // 3) + 40  # in the middle of a line
    (cut / "results.jsonl").write_bytes(expected[:place])
    evaluate(monkeypatch, capsys, data, "--out", cut)
    assert (cut / "results.jsonl").read_bytes() == expected
    assert (cut / "summary.json").read_bytes() == (whole / "summary.json").read_bytes()


def test_a_folder_of_another_run_is_refused_by_name(monkeypatch, capsys, data, whole, tmp_path):
    other = tmp_path / "shapes.jsonl"
    other.write_bytes(data.read_bytes() + b'{"question": "One more?", "images": ["1.png"]}\n')
    for arguments, problem in [
        ([data, "--scorer", "anls"], "scorer None, and this one has 'anls'"),
        ([data, "--protocol", "chat"], "protocol 'vlmevalkit', and this one has 'chat'"),
        ([other], "rows 18, and this one has 19"),
    ]:
        assert_refused(evaluate(monkeypatch, capsys, *arguments, "--out", whole), problem)
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "results.jsonl").touch()  # of a run that was killed before it had written anything else
    assert read_run(strange, is_new_allowed=True) is None
    (strange / "notes.txt").write_text("mine", encoding="utf-8")
    assert_refused(evaluate(monkeypatch, capsys, data, "--out", strange), "holds something else")


def test_images_in_tables(monkeypatch, capsys, tmp_path):
    """Base64, quoted cells with line breaks, images shared by their row's index, and lists of images."""

    def encoded(number):
        written = io.BytesIO()
        shape(number, "red").save(written, "PNG")
        return base64.b64encode(written.getvalue()).decode("ascii")

    cells = [("1", encoded(0)), ("2", "1"), ("3", "99"), ("4", ""), ("5", f"['{encoded(1)}', '{encoded(2)}']")]
    cells += [("6", "A" * 200), ("7", "A" * 200 + "\udcff"), ("8", str(tmp_path / ("a" * 60) / "8.png"))]
    (tmp_path / ("a" * 60)).mkdir()
    shape(0, "red").save(cells[-1][1])
    text = "index\timage\tquestion\tA\tB\tanswer\n"
    text += "".join(f'{index}\t{image}\t"What\n""shape"" is it?"\tcircle\tsquare\tB\n' for index, image in cells)
    (tmp_path / "MMStar.tsv").write_text(text, encoding="utf-8", errors="surrogateescape")
    evaluate(monkeypatch, capsys, tmp_path / "MMStar.tsv", "--out", tmp_path / "out")
    found = lines(tmp_path / "out")
    assert found[0]["prompt"].startswith('<|im_start|>User:<image>Question: What\n"shape" is it?\nChoices:\nA. circle')
    assert found[0]["token_ids"] == found[1]["token_ids"] != []
    assert found[4]["images"] == ["5_0.png", "5_1.png"]
    errors = [result["error"] for result in found]
    assert "no row's index with an image" in errors[2]
    assert "the suite leaves such rows out" in errors[3]
    assert "6.png: not an image of a known format" in errors[5]
    assert "object at 0x" not in errors[5]  # it differs from run to run
    assert "not UTF-8" in errors[6]
    assert found[7]["token_ids"] == found[0]["token_ids"]
    assert [error for place, error in enumerate(errors) if place not in (2, 3, 5, 6)] == [None] * 4


def test_long_fields_in_json_lines(monkeypatch, capsys, tmp_path):
    """A path where a list is usual, a list of base64 written as text, and choices that are none."""
    shape(0, "red").save(tmp_path / "1.png")
    noise = Image.effect_noise((96, 96), 64)
    noise.save(tmp_path / "noise.png")
    encoded = base64.b64encode((tmp_path / "noise.png").read_bytes()).decode("ascii")
    rows = [{"images": "1.png"}, {"image": str([encoded, encoded])}]
    rows += [{"image": "1.png", "scorer": "choice", "choices": [["x"]]}, {"image": "1.png", "answer": "[{[]: 1}]"}]
    path = tmp_path / "POPE.jsonl"
    text = "".join(json.dumps({"question": "What shape is it?", "answer": "Yes", **row}) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    evaluate(monkeypatch, capsys, path, "--out", tmp_path / "out")
    found = lines(tmp_path / "out")
    assert [result["images"] for result in found] == [["1.png"], ["2_0.png", "2_1.png"], ["1.png"], ["1.png"]]
    assert "choices is" in found[2]["error"]
    assert [found[number]["error"] for number in (0, 1, 3)] == [None] * 3


def test_the_chat_protocol_uses_the_models_template(monkeypatch, capsys, data, tmp_path):
    arguments = [data, "--protocol", "chat"]
    result = run(monkeypatch, capsys, "evaluate", *arguments, "--print-prompts")
    printed = [json.loads(line) for line in result.out.splitlines()]
    evaluate(monkeypatch, capsys, *arguments, "--out", tmp_path / "chat", "--limit", "16")
    found = lines(tmp_path / "chat")
    assert [row["prompt"] for row in printed[:10]] == [result["prompt"] for result in found[:10]]
    assert found[15]["prompt"].count("<video>") == 1
    assert found[15]["error"] is None


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "nothing says where the results go"),
        (["--out", "x", "--max-tokens", "0"], "--max-tokens is 0"),
        (["--out", "x", "--protocol", "chat", "--wrapper", "smolvlm"], "leave one out"),
        (["--out", ""], "--out: is empty"),
        (["--out", "x", "--dataset", ""], "--dataset is empty"),
        (["--out", "x", "--model", ""], "--model is empty"),
        (["--out", "x", "--image-root", "nowhere"], "--image-root nowhere: there is no such folder"),
    ],
)
def test_options_that_have_no_meaning(monkeypatch, capsys, data, arguments, problem):
    assert_refused(run(monkeypatch, capsys, "evaluate", data, *arguments), problem)


@pytest.mark.parametrize("name", ["results.jsonl", "timings.jsonl"])
def test_links_and_pipes_in_the_place_of_files_are_left_alone(monkeypatch, capsys, data, tmp_path, name):
    """What a link led to was cut off, and a pipe was waited for."""
    asked = [data, "--out", tmp_path / "out", "--limit", "1"]
    assert evaluate(monkeypatch, capsys, *asked).status == 0
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "out" / name).unlink()
    (tmp_path / "out" / name).symlink_to(tmp_path / "mine")
    assert_refused(evaluate(monkeypatch, capsys, *asked), f"{name} is no plain file")
    assert (tmp_path / "mine").read_text() == "mine"
    (tmp_path / "out" / name).unlink()
    os.mkfifo(tmp_path / "out" / name)
    assert_refused(evaluate(monkeypatch, capsys, *asked), f"{name} is no plain file")


def test_bounds_may_be_as_large_as_one_likes(monkeypatch, capsys, data, tmp_path):
    """A batch size of a billion was counted down from, and the memory's bound had no whole number of bytes."""
    options = ("--batch-size", 10**12, "--max-cache-gib", "1e300", "--limit", 2)
    assert evaluate(monkeypatch, capsys, data, "--out", tmp_path / "out", *options).status == 0
    edited = (tmp_path / "out" / "results.jsonl").read_text().replace('"score": ', '"score": "x", "old": ')
    (tmp_path / "out" / "results.jsonl").write_text(edited)
    result = evaluate(monkeypatch, capsys, data, "--out", tmp_path / "out", "--limit", 2)
    assert result.status == 2 and "results.jsonl, line 1 is damaged" in result.err


def test_the_order_of_rows_changes_no_answer(monkeypatch, capsys, data, whole, tmp_path):
    rows = [{**json.loads(line), "index": place} for place, line in enumerate(data.read_text().splitlines()[:10], 1)]
    backwards = data.parent / "backwards.jsonl"
    text = "".join(json.dumps({**row, "dataset": "shapes"}) + "\n" for row in reversed(rows))
    backwards.write_text(text, encoding="utf-8")
    assert evaluate(monkeypatch, capsys, backwards, "--out", tmp_path / "out").status == 0
    assert lines(tmp_path / "out") == lines(whole)[9::-1]


def test_tables_with_commas_and_paths(monkeypatch, capsys, data, tmp_path):
    table = data.parent / "list.csv"
    table.write_text('index,image,question,answer\na,0.png,"What shape is it?",A square.\n', encoding="utf-8")
    evaluate(monkeypatch, capsys, table, "--out", tmp_path / "out")
    (result,) = lines(tmp_path / "out")
    assert (result["index"], result["images"], result["score"]) == ("a", ["0.png"], 1)
