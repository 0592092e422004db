"""Pictures for the batch command, and the command on a folder of its own."""

import pytest
from support.batches import DEMO, lines
from support.command_lines import run


@pytest.fixture
def pictures(tmp_path):
    """A folder with three of the demo's pictures and one that is broken."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("picture", "first", "second"):
        (folder / f"{name}.png").write_bytes((DEMO / f"{name}.png").read_bytes())
    (folder / "broken.png").write_bytes((DEMO / "first.png").read_bytes()[:100])
    return folder


@pytest.fixture
def batch(monkeypatch, capsys, tmp_path):
    """A function from arguments to (the run's result, the lines by path); results go to `out.jsonl`."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        result = run(monkeypatch, capsys, "batch", *arguments, "--out", "out.jsonl")
        return result, lines(tmp_path / "out.jsonl")

    return call
