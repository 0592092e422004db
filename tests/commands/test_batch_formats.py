"""Results as JSON lines, one JSON array, CSV and on standard output: whole after every record, and gone on with."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from support.batches import DEMO
from support.command_lines import assert_refused, run

from mlx_smolvlm.batch.record import Result
from mlx_smolvlm.batch.results import ResultsChanged, ResultsFile

ROOT = Path(__file__).parent.parent.parent
RESULT = Result("a.png", None, "What?", 'Ein "Bär",\nund\r', None, "stop", 10, 5, 3, 0.5, "demo", "1-2-3")
OTHERS = [
    replace(RESULT, path="b.png", text=None, error="no such file", finish_reason=None),
    replace(RESULT, path="c.png", source="/full/c.png", text=""),
    replace(RESULT, path="caf\udce9.png", prompt="long " * 40_000),
]
ALL = [RESULT, *OTHERS]
SUFFIXES = ("jsonl", "json", "csv")


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path):
    return tmp_path / f"out.{request.param}"


def read(path):
    """What other programs find in the file."""
    content = path.read_bytes().decode("utf-8", "surrogatepass")
    if path.suffix == ".csv":
        limit = csv.field_size_limit(2**20)
        rows = list(csv.reader(io.StringIO(content, newline="")))
        csv.field_size_limit(limit)
        return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    return json.loads(content) if path.suffix == ".json" else [json.loads(line) for line in content.splitlines()]


def cells(result):
    return {key: "" if value is None else str(value) for key, value in asdict(result).items()}


def test_the_file_is_whole_after_every_record(path):
    with ResultsFile(path) as file:
        for number, result in enumerate(ALL, 1):
            file.write(result)
            expected = [cells(one) if path.suffix == ".csv" else asdict(one) for one in ALL[:number]]
            assert read(path) == expected
        file.verify()
        assert list(file.lines()) == ALL
    with ResultsFile(path) as file:
        assert (list(file.errors.values()), file.repaired) == ([False, True, False, False], b"")
        assert file.drop_errors(list(file.errors)) == 1
        file.write(replace(RESULT, path="d.png"))
        file.verify()
    assert [record["path"] for record in read(path)] == ["a.png", "c.png", "caf\udce9.png", "d.png"]


def test_a_file_cut_anywhere_is_gone_on_with(path):
    """A crash or a full disk may leave any beginning of it."""
    short = [*ALL[:3], replace(RESULT, path="caf\udce9.png")]
    with ResultsFile(path) as file:
        for result in short:
            file.write(result)
    content = path.read_bytes()
    for length in range(0, len(content), 3):
        path.write_bytes(content[:length])
        with ResultsFile(path) as file:
            found = list(file.lines()) if file.errors else []
            assert found == short[: len(found)]
            for result in short[len(found) :]:
                file.write(result)
            file.verify()
        assert path.read_bytes() == content, length


@pytest.mark.parametrize(
    ("name", "content", "number"),
    [
        ("x.json", b'[{"path": "a"}]', 1),
        ("x.json", b'[\n{"name": "a"}\n]\n', 2),
        ("x.json", b"[\n" + RESULT.line() + RESULT.line() + b"]\n", 2),
        ("x.json", b"[\n" + RESULT.line()[:-1] + b",\noops,\n" + RESULT.line() + b"]\n", 3),
        ("x.csv", b"path,text\na.png,mine\n", 1),
        ("x.csv", b"\xff", 1),
    ],
)
def test_what_this_command_has_not_written_stays(tmp_path, name, content, number):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"line {number} is not a result of this command"):
        ResultsFile(tmp_path / name)
    assert (tmp_path / name).read_bytes() == content


def deleted(path):
    path.unlink()


def replaced(path):
    path.rename(path.with_name("old"))
    path.write_bytes(path.with_name("old").read_bytes())


def truncated(path):
    os.truncate(path, 40)


def changed(path):
    with path.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("happens", [deleted, replaced, truncated, changed])
def test_a_file_that_another_program_touches_is_noticed(path, happens):
    with ResultsFile(path) as file:
        file.write(RESULT)
        happens(path)
        content = path.read_bytes() if path.exists() else None
        for notice in (lambda: file.write(OTHERS[0]), file.check, file.verify):
            with pytest.raises(ResultsChanged, match=f"was {happens.__name__} by another program"):
                notice()
    assert (path.read_bytes() if path.exists() else None) == content


def test_other_bytes_of_the_same_length_are_noticed_at_the_end(path):
    with ResultsFile(path) as file:
        file.write(RESULT)
        path.write_bytes(path.read_bytes().replace(b"a.png", b"b.png"))
        with pytest.raises(ResultsChanged, match="was changed by another program"):
            file.verify()


@pytest.mark.parametrize("happens", [deleted, truncated])
def test_results_that_are_gone_end_with_2(monkeypatch, capsys, pictures, tmp_path, happens):
    write = ResultsFile.write

    def spoil(self, result):
        write(self, result)
        if len(self.errors) == 4:  # the last one
            happens(tmp_path / "out.jsonl")

    monkeypatch.setattr(ResultsFile, "write", spoil)
    monkeypatch.chdir(tmp_path)
    result = run(monkeypatch, capsys, "batch", pictures, "--out", "out.jsonl")
    assert result.status == 2
    assert f"error: out.jsonl was {happens.__name__} by another program while it was being written" in result.err
    assert "answered" not in result.err


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_other_forms_are_gone_on_with(monkeypatch, capsys, pictures, tmp_path, suffix):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / f"out.{suffix}"

    def go(*options):
        return run(monkeypatch, capsys, "batch", pictures, "--out", out.name, *options)

    assert go("--limit", 2).status == 1
    first = read(out)
    assert "2 of them done before" in go().err
    assert read(out)[:2] == first
    assert len(read(out)) == 4
    assert "nothing was left to do" in go().err
    (pictures / "broken.png").write_bytes((DEMO / "first.png").read_bytes())
    assert go("--retry-errors").status == 0
    assert {record["error"] for record in read(out)} == ({None} if suffix == "json" else {""})


def test_standard_output_gets_lines_of_json_and_nothing_else(monkeypatch, capsys, pictures, tmp_path):
    monkeypatch.chdir(tmp_path)
    result = run(monkeypatch, capsys, "batch", pictures, "--out", "-")
    assert result.status == 1
    assert len([json.loads(line) for line in result.out.splitlines()]) == 4
    assert "4 images: 3 answered, 1 with an error;" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]
    assert_refused(run(monkeypatch, capsys, "batch", pictures, "--out", "-", "--retry-errors"), "--out - keeps none")


def test_a_reader_that_goes_ends_the_work_quietly(pictures, tmp_path):
    code = "import signal; signal.signal(signal.SIGPIPE, signal.SIG_IGN)\n"
    code += "from mlx_smolvlm.batch.__main__ import main; main()"
    command = [sys.executable, "-c", code, str(pictures), "--out", "-", "--batch-size", "1"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True
    )
    assert json.loads(process.stdout.readline())["path"]
    process.stdout.close()
    assert process.wait(timeout=60) in (0, -signal.SIGPIPE)
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
