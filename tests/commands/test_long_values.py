"""Whatever is given, the line that refuses it is short; 100,000 characters of it were quoted."""

import io
import sys

import pytest
from support.command_lines import run

from mlx_smolvlm.command_line.runner import MAX_LINE, one_line

LONG = "x" * 100_000
LINES = {
    "model": ["generate", "--prompt", "x", "--model", f"data:image/png;base64,{LONG}"],
    "deep model": ["generate", "--prompt", "x", "--model", f"/{LONG}"],
    "image": ["generate", "--prompt", "x", "--image", LONG],
    "number": ["generate", "--prompt", "x", "--max-tokens", "9" * 5000],
    "unknown option": ["generate", f"--{LONG}"],
    "results": ["batch", ".", "--out", f"{LONG}.jsonl"],
    "input": ["batch", LONG, "--out", "out.jsonl"],
    "source": ["watch", f"lavfi:{LONG}", "--prompt", "x"],
    "session": ["chat", "--session", LONG],
    "revision": ["convert", "--hf-path", "nowhere", "--revision", LONG],
    "pattern": ["convert", "--hf-path", "nowhere", "-q", "--skip", LONG],
    "target": ["convert", "--hf-path", "nowhere", "--mlx-path", LONG],
    "folder": ["benchmark", "--model", "nowhere", "--folder", LONG],
}


@pytest.mark.parametrize("words", LINES.values(), ids=LINES)
def test_the_line_is_short(monkeypatch, capsys, tmp_path, words) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    result = run(monkeypatch, capsys, *words)
    assert result.status == 2
    lines = result.err.splitlines()
    assert lines[-1].startswith("error: ") and "not foreseen" not in lines[-1]
    assert max(map(len, lines)) <= MAX_LINE + 50


def test_an_option_that_names_no_file_is_not_taken_for_one(monkeypatch, capsys) -> None:
    """\"File name too long\" was said of a revision."""
    result = run(monkeypatch, capsys, *LINES["revision"])
    assert "no folder 'nowhere', and that is no Hub id either" in result.err


def test_file_names_are_cut_in_errors_of_the_system() -> None:
    assert len(one_line(OSError(36, "File name too long", LONG))) <= MAX_LINE + 3
