"""An answer that the token budget or the context cuts is named in one line, on a terminal."""

import json
from types import SimpleNamespace

import pytest
from support.batches import DEMO
from support.command_lines import run

from mlx_smolvlm.command_line.notes import cut_note

NOTE = "note: the answer is cut after 3 tokens, by --max-tokens; a higher number leaves room for more\n"
CAPTIONS = "note: the caption is cut, by --max-tokens 3 or the end of the model's context; a higher number leaves room"
ASKED = ("--image", DEMO / "picture.png", "--prompt", "Describe the picture.")


def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")  # without the line that says what goes on
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)


@pytest.mark.parametrize(
    ("options", "is_said"), [(["3"], True), (["20"], False), (["3", "--quiet"], False), (["3", "--json"], False)]
)
def test_generate_says_so_after_the_answer(monkeypatch, capsys, options, is_said):
    terminal(monkeypatch)
    result = run(monkeypatch, capsys, "generate", *ASKED, "--max-tokens", *options)
    assert result.status == 0
    assert result.err.endswith(NOTE) == is_said
    assert ("cut" in result.err) == is_said
    if "--json" in options:
        assert json.loads(result.out)["finish_reason"] == "length"


@pytest.mark.parametrize(("prompt_tokens", "why"), [(96, "the end of the model's context"), (80, "--max-tokens")])
def test_the_line_names_what_helps(prompt_tokens, why):
    step = SimpleNamespace(prompt_tokens=prompt_tokens, completion_tokens=4)
    assert why in cut_note(step, max_tokens=20, context_length=100)


def test_programs_that_read_stderr_find_nothing_there(monkeypatch, capsys):
    assert "cut" not in run(monkeypatch, capsys, "generate", *ASKED, "--max-tokens", 3).err


def test_watch_says_it_once(monkeypatch, capsys):
    terminal(monkeypatch)
    watched = ("watch", DEMO / "clip.mp4", "--window", 4, "--max-tokens", 3)
    result = run(monkeypatch, capsys, *watched)
    assert len(result.out.splitlines()) == 2
    assert result.err.count(CAPTIONS) == 1


def test_the_summary_of_a_batch_counts_them_of_earlier_runs_too(batch, pictures):
    for _ in range(2):
        result, lines = batch(pictures, "--max-tokens", 3)
        assert [line["finish_reason"] for line in lines.values()].count("length") == 3
        assert "3 answered, 1 with an error" in result.err
        assert '; 3 cut by --max-tokens or the end of the model\'s context (finish_reason "length")' in result.err
