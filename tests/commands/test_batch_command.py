"""`python -m mlx_smolvlm.batch`: what it writes, and how it goes on."""

import errno
import json
import os
from pathlib import Path

import pytest
from support.batches import DEMO, lines
from support.command_lines import assert_refused, run

from mlx_smolvlm import DEMO_MODEL, generate_text, load
from mlx_smolvlm.command_line.progress import per_second

FIELDS = [
    *("path", "source", "prompt", "text", "error", "finish_reason"),
    *("prompt_tokens", "image_tokens", "completion_tokens", "seconds", "model", "run"),
]


def test_each_picture_has_a_line_and_a_broken_one_its_reason(batch, pictures):
    result, done = batch(pictures)
    assert (result.status, result.out) == (1, "")
    assert '4 images: 3 answered, 1 with an error (see "error" in out.jsonl)' in result.err
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
    assert "note: out.jsonl has 1 line about what is not in the input; it stays" in result.err


def test_errors_can_be_tried_again(batch, pictures):
    batch(pictures)
    (pictures / "broken.png").write_bytes((DEMO / "first.png").read_bytes())
    result, done = batch(pictures)
    assert done[str(pictures / "broken.png")]["error"] is not None
    result, done = batch(pictures, "--retry-errors")
    assert "note: 1 image of out.jsonl that had an error is tried again" in result.err
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
    assert "note: 1 image of out.jsonl that had an error is tried again" in result.err
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
    assert result.status == 1
    assert "note: 1 image is listed twice; each is done once" in result.err
    by_name = {Path(path).name: record for path, record in done.items()}
    assert by_name["clip.mp4"]["text"] == "The blue shape moves to the right."
    assert by_name["first.png"]["text"] == by_name["second.png"]["text"] == "A star."
    assert by_name["picture.png"]["text"] == "A large red circle at the top left."
    assert "2 <image> markers but 1 image was given" in by_name["none.png"]["error"]


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


def test_results_may_lie_among_the_pictures(monkeypatch, capsys, pictures):
    for _ in range(2):
        result = run(monkeypatch, capsys, "batch", f"{pictures}/*", "--out", pictures / "out.jsonl")
        assert "4 images: 3 answered, 1 with an error" in result.err
    assert len(lines(pictures / "out.jsonl")) == 4


def test_content_decides_not_names(batch, tmp_path):
    """A video's name on a picture, and the reverse."""
    (tmp_path / "x.mp4").write_bytes((DEMO / "first.png").read_bytes())
    (tmp_path / "y.png").write_bytes((DEMO / "clip.mp4").read_bytes())
    result, done = batch("x.mp4", "y.png")
    assert result.status == 0
    assert done["x.mp4"]["text"].startswith("A ")
    assert done["y.png"]["text"] == "The blue shape moves to the right."


def test_a_folder_that_cannot_be_read_makes_the_status_1(batch, pictures, monkeypatch):
    (pictures / "broken.png").unlink()
    (pictures / "shut").mkdir()
    scandir = os.scandir

    def refuse(path):  # the superuser may read anything
        if str(path).endswith("shut"):  # others pass a descriptor
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (pictures / "clip.mp4").write_bytes(b"\x1aE\xdf\xa3")
    result, done = batch(pictures)
    assert (result.status, len(done)) == (1, 3)
    assert "note: skipped 1 file: 1 MP4\n" in result.err
    assert f"note: 1 folder could not be read: {pictures / 'shut'} (Permission denied)" in result.err
    assert "3 images: 3 answered, 0 with errors; " in result.err


@pytest.mark.parametrize(
    ("rate", "told"),
    [
        (290.4, "290 pictures/s"),
        (99.96, "100 pictures/s"),
        (2.46, "2.5 pictures/s"),
        (0.01, "36 pictures/h"),
        (1e-4, "0.36 pictures/h"),
    ],
)
def test_rates_have_no_exponents(rate, told):
    assert per_second(rate, "pictures") == told
