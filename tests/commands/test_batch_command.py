"""`python -m mlx_smolvlm.batch`: what it writes, how it goes on, what it refuses, and how it is stopped.

One file: each test runs the whole command with the helpers at its top.
"""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.command_lines import assert_refused, run

from mlx_smolvlm import DEMO_MODEL, generate_text, load
from mlx_smolvlm.batch.results import ResultsFile
from mlx_smolvlm.command_line.progress import Progress

ROOT = Path(__file__).parent.parent.parent
DEMO = DEMO_MODEL.parent
FIELDS = [
    *("path", "source", "prompt", "text", "error", "finish_reason"),
    *("prompt_tokens", "image_tokens", "completion_tokens", "seconds", "model", "run"),
]


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


def lines(path):
    """The records of a results file by path; every line is one."""
    if not path.exists():
        return {}
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    by_path = {record["path"]: record for record in records}
    assert len({record["source"] or record["path"] for record in records}) == len(records)
    return by_path


def test_each_picture_has_a_line_and_a_broken_one_its_reason(batch, pictures):
    result, done = batch(pictures)
    assert (result.status, result.out) == (0, "")
    assert '4 images: 3 answered, 1 with errors (see "error" in out.jsonl)' in result.err
    assert sorted(done) == sorted(str(path) for path in pictures.iterdir())
    pair = load(DEMO_MODEL)
    for name in ("picture", "first", "second"):
        record = done[str(pictures / f"{name}.png")]
        assert list(record) == FIELDS
        assert record["text"] == generate_text(*pair, "Describe the picture.", images=[DEMO / f"{name}.png"])
        assert (record["error"], record["finish_reason"], record["prompt"]) == (None, "stop", "Describe the picture.")
        assert 0 < record["image_tokens"] < record["prompt_tokens"]
        assert record["completion_tokens"] > 3
        assert record["seconds"] > 0
    broken = done[str(pictures / "broken.png")]
    assert (broken["text"], broken["finish_reason"], broken["completion_tokens"]) == (None, None, 0)
    assert "damaged" in broken["error"]


def test_a_rerun_does_what_is_missing(batch, pictures, tmp_path):
    _, first = batch(pictures, "--limit", 2)
    assert len(first) == 2
    result, whole = batch(pictures)
    assert whole.items() >= first.items()
    assert len(whole) == 4
    assert "2 of them done before" in result.err
    content = (tmp_path / "out.jsonl").read_bytes()
    result, _ = batch(pictures)
    assert "nothing was left to do" in result.err
    assert (tmp_path / "out.jsonl").read_bytes() == content
    (pictures / "first.png").unlink()
    result, _ = batch(pictures)
    assert "note: out.jsonl has 1 lines about what is not in the input; they stay" in result.err


def test_errors_can_be_tried_again(batch, pictures):
    batch(pictures)
    (pictures / "broken.png").write_bytes((DEMO / "first.png").read_bytes())
    result, done = batch(pictures)
    assert done[str(pictures / "broken.png")]["error"] is not None
    result, done = batch(pictures, "--retry-errors")
    assert "note: 1 images of out.jsonl that had an error are tried again" in result.err
    assert done[str(pictures / "broken.png")]["text"] == done[str(pictures / "first.png")]["text"]
    assert "4 answered, 0 with errors" in result.err


def test_only_what_the_input_names_is_tried_again_and_nothing_is_dropped_before_it_can_be(batch, pictures, tmp_path):
    (pictures / "gone.png").write_bytes(b"")
    _, before = batch(pictures)
    assert sum(record["error"] is not None for record in before.values()) == 2
    prompt = ("--prompt", "Describe the picture.")  # the demo's own
    assert_refused(batch(pictures, "--retry-errors", *prompt, "--model", "no such folder")[0], "no such folder")
    assert lines(tmp_path / "out.jsonl") == before
    result, after = batch(pictures / "broken.png", "--retry-errors")
    assert "note: 1 images of out.jsonl that had an error are tried again" in result.err
    assert after.keys() == before.keys()


def test_lists_may_give_the_same_name_to_different_pictures(batch, pictures, tmp_path):
    for folder, name in (("train", "first"), ("val", "second"), ("test", "picture")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0.png").write_bytes((DEMO / f"{name}.png").read_bytes())
        (tmp_path / folder / "list.csv").write_text("path\n0.png\n")
    for lists, count in ((("train/list.csv", "val/list.csv"), 2), (("test/list.csv",), 3), (("val/list.csv",), 3)):
        run_result = run_batch(batch, *lists)
        assert len(run_result) == count
    assert {record["path"] for record in run_result.values()} == {"0.png"}
    assert len({record["text"] for record in run_result.values()}) == 3


def run_batch(batch, *arguments):
    """The lines by the files that were read."""
    assert batch(*arguments)[0].status == 0
    records = map(json.loads, Path("out.jsonl").read_text(encoding="utf-8").splitlines())
    return {record["source"]: record for record in records}


def test_lists_bring_videos_and_questions(batch, tmp_path):
    (tmp_path / "list.jsonl").write_text(
        "\n".join(
            json.dumps(entry)
            for entry in (
                {"path": str(DEMO / "clip.mp4")},
                {"path": str(DEMO / "first.png"), "prompt": "What shape is it?"},
                {"path": str(DEMO / "second.png"), "prompt": "Here: <image> What shape is it?"},
                {"path": str(DEMO / "picture.png")},
                {"path": str(DEMO / "picture.png"), "prompt": "Describe the picture."},
                {"path": str(tmp_path / "none.png"), "prompt": "<image><image>"},
            )
        )
    )
    result, done = batch("list.jsonl", "--max-tokens", 20)
    assert result.status == 0
    assert "note: 1 images are listed twice; each is done once" in result.err
    by_name = {Path(path).name: record for path, record in done.items()}
    assert by_name["clip.mp4"]["text"] == "The blue shape moves to the right."
    assert by_name["first.png"]["text"] == by_name["second.png"]["text"] == "A star."
    assert by_name["picture.png"]["text"] == "A large red circle at the top left."
    assert "2 <image> markers but 1 images" in by_name["none.png"]["error"]


def test_a_prompt_beyond_the_context_is_an_error_of_its_line(batch, tmp_path):
    entries = [
        {"path": str(DEMO / "first.png"), "prompt": prompt} for prompt in ("long " * 20_000, "What shape is it?")
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, entries)))
    run_result = batch("list.jsonl", "--limit", 1)
    assert "model's context" in run_result[1][str(DEMO / "first.png")]["error"]


def test_options_are_those_of_generate(batch, pictures):
    _, done = batch(pictures, "--prompt", "Is it a star?", "--regex", "(yes|no)", "--limit", 2, "--system", "Be brief.")
    assert {record["text"] for record in done.values()} <= {"yes", "no", None}


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


def test_a_line_that_was_not_written_whole_is_made_again(batch, pictures, tmp_path):
    path = tmp_path / "out.jsonl"
    _, whole = batch(pictures)
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    result, done = batch(pictures)
    assert "note: out.jsonl ended with a line that was not written whole" in result.err
    assert {path: record["text"] for path, record in done.items()} == {
        path: record["text"] for path, record in whole.items()
    }


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
        (("list.txt",), "list.txt is not an image; a list is a .jsonl or a .csv file"),
        (("pictures", "--batch-size", "0"), "--batch-size is 0"),
        (("pictures", "--limit", "0"), "--limit is 0"),
        (("pictures", "--temperature", "-1"), "temperature is -1.0"),
        (("pictures", "--max-edge", "0"), "longest_edge is 0"),
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
        ("pictures", "not a file"),
        ("pictures/first.png", "line 1 is not a result of this command"),
    ],
)
def test_places_for_results_are_checked_first(monkeypatch, capsys, pictures, tmp_path, out, problem):
    monkeypatch.chdir(tmp_path)
    assert_refused(run(monkeypatch, capsys, "batch", "pictures", "--out", out), problem)
    assert (pictures / "first.png").read_bytes() == (DEMO / "first.png").read_bytes()


def test_results_may_lie_among_the_pictures(monkeypatch, capsys, pictures):
    for _ in range(2):
        result = run(monkeypatch, capsys, "batch", f"{pictures}/*", "--out", pictures / "out.jsonl")
        assert "4 images: 3 answered, 1 with errors" in result.err
    assert len(lines(pictures / "out.jsonl")) == 4


def test_two_processes_cannot_write_one_file(batch, pictures, tmp_path):
    with ResultsFile(tmp_path / "out.jsonl"):
        assert_refused(batch(pictures)[0], "another process is writing out.jsonl")


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


def started(code, *arguments, cwd, **options):
    """A process that runs `code` and then the command."""
    code += "\nfrom mlx_smolvlm.batch.__main__ import main\nmain()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, **options)


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


def test_bad_input_is_found_before_mlx_is_imported(tmp_path):
    report = (
        "import atexit, sys; atexit.register(lambda: print([n for n in ('mlx.core', 'numpy') if n in sys.modules]))"
    )
    done = started(report, "no such", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "[]\n")


def test_the_work_goes_on_when_nobody_reads_the_messages(pictures, tmp_path):
    closed = "import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 2)"
    done = started(closed, pictures, "--out", "out.jsonl", cwd=tmp_path)
    assert done.returncode == 0
    assert len(lines(tmp_path / "out.jsonl")) == 4


def test_pixels_decide_not_names(batch, tmp_path):
    """A video's name on a picture, and the reverse, are errors of their lines."""
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / "x.mp4")
    (tmp_path / "y.png").write_bytes((DEMO / "clip.mp4").read_bytes())
    result, done = batch("x.mp4", "y.png")
    assert result.status == 0
    assert "pass it with --video" in done["y.png"]["error"]
    assert done["x.mp4"]["error"]
