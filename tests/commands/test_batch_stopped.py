"""The batch command stopped, on a full disk and unread, and refused before it begins."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.batches import DEMO, lines
from support.command_lines import assert_refused, run

from mlx_smolvlm.batch.results import ResultsFile
from mlx_smolvlm.command_line.progress import Progress

ROOT = Path(__file__).parent.parent.parent


def started(code, *arguments, cwd, **options):
    """A process that runs `code` and then the command."""
    code += "\nfrom mlx_smolvlm.batch.__main__ import main\nmain()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, **options)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--prompt", "What shape is it?"), "out.jsonl answers another prompt, 'Describe the picture.'"),
        (("--max-tokens", 7), "made with other options"),
        (("--system", "Be brief."), "made with other options"),
        (("--dtype", "float16"), "another model (demo) or of other types of numbers (dtype) than this one (demo)"),
    ],
)
def test_results_of_another_run_are_not_continued(batch, pictures, tmp_path, options, problem):
    batch(pictures)
    content = (tmp_path / "out.jsonl").read_bytes()
    result, _ = batch(pictures, *options)
    assert_refused(result, problem)
    assert "name another file with --out" in result.err
    assert (tmp_path / "out.jsonl").read_bytes() == content


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("no such",), "no folder or file 'no such'"),
        (("empty",), "no images in empty"),
        (("faulty.csv",), "line 2: expected 2 values"),
        (("pictures", "--prompt", ""), "--prompt is empty"),
        (("pictures", "--prompt", "<image> <image>"), "2 markers, but each question is about one image"),
        (("pictures", "--prompt", "<video> What?"), "--prompt has the marker <video>, but is about images only"),
        (("pictures", "--system", " "), "--system is empty"),
        (("list.txt",), 'list.txt, line 1: there is no file "a.png", nor is any other line one'),
        (("pictures", "--batch-size", "0"), "--batch-size is 0"),
        (("pictures", "--limit", "0"), "--limit is 0"),
        (("pictures", "--temperature", "-1"), "temperature is -1.0"),
        (("pictures", "--max-edge", "0"), "longest_edge is 0"),
        (("pictures", "--fps", "2"), "fps is 2.0, but there is no video; leave it out"),
        (("pictures", "--regex", "a(b"), "unclosed group"),
        (("pictures", "--model", "no such folder"), "no such folder"),
        ((), "the following arguments are required: INPUT"),
    ],
)
def test_bad_input_ends_with_one_line(batch, pictures, tmp_path, arguments, problem):
    (tmp_path / "empty").mkdir()
    (tmp_path / "faulty.csv").write_text("path,prompt\na.png\n")
    (tmp_path / "list.txt").write_text("a.png\n")
    assert_refused(batch(*arguments)[0], problem)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("out", "problem"),
    [
        ("/dev/full", "not a file that results can be kept in"),
        ("no/such/out.jsonl", "no folder no/such"),
        ("pictures", "is a folder; name a file in it, such as pictures/results.jsonl"),
        ("new/", "is a folder; name a file in it, such as new/results.jsonl"),
        ("pictures/first.png", "the name says in which form; expected one that ends in .jsonl"),
        ("picture.jsonl", "line 1 is not a result of this command"),
        ("lines.csv", "lines.csv holds JSON lines; rename it to lines.jsonl"),
        ("lines.json", "lines.json holds JSON lines; rename it to lines.jsonl"),
        ("table.csv", "line 1 is not a result of this command"),
    ],
)
def test_places_for_results_are_checked_first(monkeypatch, capsys, pictures, tmp_path, out, problem):
    monkeypatch.chdir(tmp_path)
    contents = {"picture.jsonl": (DEMO / "first.png").read_bytes(), "table.csv": b"path,caption\na.png,mine\n"}
    contents |= dict.fromkeys(("lines.csv", "lines.json"), b'{"path": "a.png", "prompt": "What?"}\n')
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    assert_refused(run(monkeypatch, capsys, "batch", "pictures", "--out", out), problem)
    assert (pictures / "first.png").read_bytes() == (DEMO / "first.png").read_bytes()
    assert {name: (tmp_path / name).read_bytes() for name in contents} == contents


def test_two_processes_cannot_write_one_file(batch, pictures, tmp_path):
    with ResultsFile(tmp_path / "out.jsonl"):
        assert_refused(batch(pictures)[0], "another process is writing out.jsonl")


def test_bad_input_is_found_before_mlx_is_imported(tmp_path):
    report = (
        "import atexit, sys; atexit.register(lambda: print([n for n in ('mlx.core', 'numpy') if n in sys.modules]))"
    )
    done = started(report, "no such", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "[]\n")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopping_keeps_what_is_done(batch, pictures, monkeypatch, number, status):
    advance = Progress.advance

    def stop(self, *arguments, **options):
        advance(self, *arguments, **options)
        signal.raise_signal(number)

    handlers = [signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(Progress, "advance", stop)
    result, done = batch(pictures, "--batch-size", 1)
    assert [signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert result.status == status
    assert result.err.endswith(
        "stopped; what was done is kept in out.jsonl. Run the same command again to do the rest\n"
    )
    assert len(done) == 1
    monkeypatch.setattr(Progress, "advance", advance)
    assert len(batch(pictures)[1]) == 4


def test_a_full_disk_loses_nothing_but_the_line_it_had_no_room_for(batch, pictures, tmp_path):
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (700, {resource.RLIM_INFINITY}))"
    done = started(limit, pictures, "--out", "out.jsonl", "--batch-size", "1", cwd=tmp_path)
    assert done.returncode == 2
    assert "error: out.jsonl cannot be written: File too large. What it holds is kept" in done.stderr
    assert "Traceback" not in done.stderr
    kept = (tmp_path / "out.jsonl").read_bytes()
    assert kept.endswith(b"\n")
    assert 0 < len(lines(tmp_path / "out.jsonl")) < 4
    batch(pictures)
    assert (tmp_path / "out.jsonl").read_bytes().startswith(kept)
    assert len(lines(tmp_path / "out.jsonl")) == 4


def test_the_work_goes_on_when_nobody_reads_the_messages(pictures, tmp_path):
    closed = "import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 2)"
    done = started(closed, pictures, "--out", "out.jsonl", cwd=tmp_path)
    assert done.returncode == 1  # one is broken
    assert len(lines(tmp_path / "out.jsonl")) == 4
