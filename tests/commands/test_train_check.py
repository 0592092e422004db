"""`train --check`: rows as the model sees them, the trained tokens marked, without training."""

import json

import pytest
from PIL import Image
from support.command_lines import assert_refused, run
from support.made_adapters import write_peft

ROWS = [
    {"question": "What shape is it?", "answer": "A square.", "image": "a.png"},
    {"question": "And \u0007 without?", "answer": "Nothing."},
]


@pytest.fixture
def rows(tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def check(monkeypatch, capsys, rows, *options):
    return run(monkeypatch, capsys, "train", "--check", "--data", rows, *options)


def test_a_line_of_json_for_each_row(monkeypatch, capsys, rows, demo):
    shown = check(monkeypatch, capsys, rows, "--json")
    records = [json.loads(line) for line in shown.out.splitlines()]
    assert [record["row"] for record in records] == ["rows.jsonl:1", "rows.jsonl:2"]
    assert [record["num_tiles"] > 0 for record in records] == [True, False]
    for record, answer in zip(records, ("A square.", "Nothing."), strict=True):
        trained = [
            token for token, is_trained in zip(record["input_ids"], record["trained"], strict=True) if is_trained
        ]
        assert demo[1].decode(trained, skip_special_tokens=False) == f" {answer}<end_of_utterance>\n"
    number = sum(sum(record["trained"]) for record in records)
    assert (shown.status, shown.err) == (0, f"rows: 2, trained tokens: {number}\n")
    whole = check(monkeypatch, capsys, rows, "--json", "--train-on-prompt").out.splitlines()
    assert sum(sum(json.loads(line)["trained"]) for line in whole) > number


def test_the_page_is_named(monkeypatch, capsys, rows, tmp_path):
    page = tmp_path / "rows.html"
    shown = check(monkeypatch, capsys, rows, "--html", page)
    assert (shown.status, shown.err.splitlines()[-1]) == (0, f"wrote {page}"), shown


def test_held_rows_are_looked_at_as_well(monkeypatch, capsys, rows, tmp_path):
    (tmp_path / "held.jsonl").write_text(json.dumps(ROWS[1]) + "\n", encoding="utf-8")
    shown = check(monkeypatch, capsys, rows, "--validation", tmp_path / "held.jsonl", "--json")
    assert [json.loads(line)["row"] for line in shown.out.splitlines()][1:] == ["rows.jsonl:2", "held.jsonl:1"]
    assert f"{tmp_path / 'held.jsonl'}: rows: 1, trained tokens: " in shown.err
    (tmp_path / "held.jsonl").write_text('{"question": "What?"}\n', encoding="utf-8")
    shown = check(monkeypatch, capsys, rows, "--validation", tmp_path / "held.jsonl", "--json")
    assert shown.status == 2
    assert "error: held.jsonl:1: has no answer" in shown.err


def test_the_template_of_an_adapter_that_is_continued_is_used(monkeypatch, capsys, rows, demo, tmp_path):
    write_peft(tmp_path / "adapter", {"model.text_model.layers.0.self_attn.q_proj": (8, 8)})
    upper = demo[1].config.chat_template.replace("| capitalize", "| upper")
    (tmp_path / "adapter" / "chat_template.jinja").write_text(upper.replace("'Assistant:'", "'ASSISTANT:'"))
    shown = check(monkeypatch, capsys, rows, "--init-adapter", tmp_path / "adapter")
    assert (shown.status, "USER:" in shown.out, "User:" in shown.out) == (0, True, False), shown


def test_people_see_text_and_ids_with_trained_parts_marked(monkeypatch, capsys, rows):
    lines = check(monkeypatch, capsys, rows).out.splitlines()
    assert lines[0].startswith("rows.jsonl:1: ")
    assert "What shape is it?<end_of_utterance>\\nAssistant:[[ A square.<end_of_utterance>\\n]]" in lines[1]
    assert "And \\x07 without?" in lines[5]  # which could ring a terminal's bell
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert "Assistant:\x1b[30;42m A square." in check(monkeypatch, capsys, rows).out


def test_a_page_with_images_that_replaces_only_its_own_kind(monkeypatch, capsys, rows, tmp_path):
    page = tmp_path / "rows.html"
    for _ in range(2):
        assert check(monkeypatch, capsys, rows, "--html", page).status == 0
    text = page.read_text(encoding="utf-8")
    assert "<b> A square.&lt;end_of_utterance&gt;\n</b>" in text
    assert "data:image/jpeg;base64," in text
    assert "://" not in text
    page.write_text("mine")
    assert_refused(check(monkeypatch, capsys, rows, "--html", page), "is no page of this command")
    assert page.read_text() == "mine"


def test_long_and_bad_rows_are_named_and_counted(monkeypatch, capsys, rows):
    with rows.open("a") as file:
        file.write('{"question": "What?", "image": "none.png", "answer": "?"}\n{"question": }\n')
    assert "error: rows.jsonl:4: not JSON" in check(monkeypatch, capsys, rows).err
    shown = check(monkeypatch, capsys, rows, "--json", "--skip-bad-rows", "--max-length", 40)
    assert [json.loads(line)["row"] for line in shown.out.splitlines()] == ["rows.jsonl:2"]
    left_out = "left out: rows.jsonl:4: not JSON", "left out: rows.jsonl:1: ", "left out: rows.jsonl:3: "
    assert all(line.startswith(start) for line, start in zip(shown.err.splitlines(), left_out, strict=False))
    assert "rows left out: 1 too long and 2 bad\n" in shown.err
    shown = check(monkeypatch, capsys, rows, "--json", "--skip-bad-rows", "--max-length", 2)
    assert (shown.status, shown.out) == (2, "")
    assert shown.err.endswith("rows.jsonl: no row is left to train on\n")


def test_content_that_is_no_list_of_items_is_refused_by_row(monkeypatch, capsys, rows):
    rows.write_text(json.dumps({"question": "What?", "answer": ["A square."]}))
    assert_refused(check(monkeypatch, capsys, rows), "rows.jsonl:1: messages[1] has content type None in 'A square.'")


def test_options_of_what_no_row_has_are_refused(monkeypatch, capsys, rows):
    assert_refused(check(monkeypatch, capsys, rows, "--fps", 2), "fps is 2.0, but there is no video; leave it out")
    rows.write_text(json.dumps(ROWS[1]))
    assert_refused(check(monkeypatch, capsys, rows, "--no-split"), "but there is no image; leave it out")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--check"], "--data is missing"),
        (["--check", "--data", "none.jsonl"], "no file 'none.jsonl' with rows to train on"),
        (["--data", "rows.jsonl", "--json"], "--json shows what --check finds"),
        (["--check", "--data", "rows.jsonl", "--max-length", "1"], "--max-length is 1, expected at least 2"),
        (["--check", "--data", "rows.jsonl", "--html", "none/a.html"], "--html none/a.html: there is no such folder"),
    ],
)
def test_what_cannot_be_shown_is_refused(monkeypatch, capsys, options, problem):
    assert_refused(run(monkeypatch, capsys, "train", *options), problem)
