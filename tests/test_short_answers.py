"""The example of short answers about made figures: its README's commands, cut down; as pasted with `--slow`."""

import csv
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from support.command_lines import run

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "short_answers"
sys.path.append(str(EXAMPLE))

import make_figures  # noqa: E402

COMMANDS = re.findall(r"^```bash\n(.*?)^```", (EXAMPLE / "README.md").read_text(encoding="utf-8"), re.M | re.S)
FEW = {"--train": 3, "--held": 1, "--test": 2}  # figures
STEPS = {"--epochs": ("--steps", "2"), "--validate-every": ("--validate-every", "2")}


def commands(cut: bool):
    """(module or script, its arguments) of the README's commands; if `cut`, with few steps of training."""
    for line in "".join(COMMANDS).splitlines():
        words = shlex.split(line.replace("examples/", f"{ROOT}/examples/"))
        assert words.pop(0) == "python"
        name = words.pop(0) if words[0] != "-m" else words[1].rpartition(".")[2]
        words = words[2:] if words[:1] == ["-m"] else words
        for option, changed in STEPS.items() if cut else ():
            if option in words:
                place = words.index(option)
                words[place : place + 2] = changed
        yield name, words


def run_example(monkeypatch, capsys, folder, cut):
    """What the commands print, in their order."""
    monkeypatch.chdir(folder)
    printed = []
    for name, arguments in commands(cut):
        if name.endswith("make_figures.py"):
            few = [str(word) for pair in FEW.items() for word in pair] if cut else []
            monkeypatch.setattr(sys, "argv", [name, *arguments, *few])
            make_figures.main()
            continue
        result = run(monkeypatch, capsys, name, *arguments)
        assert result.status == 0, result.err
        printed.append((name, result.out))
    return printed


def score(folder):
    """Per cent of the answers that are right."""
    return json.loads((folder / "summary.json").read_text())["sets"]["test"]["score"]


def test_the_commands_of_the_readme_work_together(monkeypatch, capsys, tmp_path):
    printed = run_example(monkeypatch, capsys, tmp_path, cut=True)
    assert [name for name, _ in printed] == ["train", "evaluate", "train", "evaluate", "evaluate", "generate"]
    with (tmp_path / "figures" / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 4
    assert all((tmp_path / "figures" / row["image"]).exists() for row in rows)
    assert "How many cells are there?" in (tmp_path / "train.html").read_text()
    assert (tmp_path / "short" / "report.html").exists()
    assert (tmp_path / "after" / "report.html").exists()


@pytest.mark.slow
def test_it_learns_to_answer_briefly(monkeypatch, capsys, tmp_path):
    run_example(monkeypatch, capsys, tmp_path, cut=False)
    assert score(tmp_path / "before") <= 5
    assert score(tmp_path / "after") >= 85
