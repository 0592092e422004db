"""`python -m mlx_smolvlm.document INPUT...`: files written, runs that go on, what is refused or reported."""

import json
import os
import re
import sys
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image
from support.command_lines import assert_refused, run
from support.document_checkpoint import tokens
from support.forced import force_tokens
from support.made_pdfs import ENCRYPTED, MadePage, pdf_bytes, write_pdf

from mlx_smolvlm.document.__main__ import _TASKS
from mlx_smolvlm.documents import page_records
from mlx_smolvlm.documents.doctags import parse_doctags
from mlx_smolvlm.documents.document_job import output_stems
from mlx_smolvlm.documents.export import export
from mlx_smolvlm.documents.page_records import PageRecords
from mlx_smolvlm.documents.tasks import PROMPTS

sys.path.append(str(Path(__file__).parents[2] / "examples"))

import demo_documents

PAGE = "<doctag><title><loc_50><loc_50><loc_450><loc_90>Page {}</title>\n</doctag>"
SMALL = MadePage(width=60, height=60)


@pytest.fixture
def document(monkeypatch, capsys, tmp_path, document_checkpoint):
    """A function from arguments to the run's result; results go to `out` within the current folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, model=document_checkpoint):
        chosen = [] if model is None else ["--model", model]
        return run(monkeypatch, capsys, "document", *arguments, *chosen, "--dtype", "float32", "--out", "out")

    return call


@pytest.fixture
def begun(monkeypatch):
    """Rows whose answers begin, in order; each says which one it is."""
    return force_tokens(monkeypatch, lambda key: tokens(PAGE.format(key + 1)))


def test_documents_of_a_folder_are_written_beside_each_other(document, begun, tmp_path):
    (tmp_path / "in" / "below").mkdir(parents=True)
    write_pdf(tmp_path / "in" / "below" / "two.pdf", [SMALL, SMALL])
    Image.new("RGB", (40, 50), "white").save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "notes.txt").write_text("no document")
    result = document("in")
    assert (result.status, result.out) == (0, "")
    assert "note: skipped 1 file: 1 TXT\n" in result.err
    assert "3 pages of 2 documents; " in result.err and " pages/s" in result.err
    assert (tmp_path / "out" / "a.md").read_text() == "# Page 1\n"
    assert (tmp_path / "out" / "below" / "two.md").read_text() == "# Page 2\n\n# Page 3\n"
    result = document("in", "--to", "json", "--quiet")  # pages are there: another format reads none again
    assert (result.status, result.err) == (0, "note: skipped 1 file: 1 TXT\n")
    assert [page["page_no"] for page in json.loads((tmp_path / "out" / "below" / "two.json").read_text())["pages"]] == [
        1,
        2,
    ]
    assert len(begun) == 3


def test_doctags_are_the_models_own(document, monkeypatch, tmp_path):
    answers = ["<doctag><form><text>a<b</text></form></doctag>", "<doctag><text>Cut <fcel> here"]
    force_tokens(monkeypatch, lambda key: tokens(answers[key]))
    write_pdf(tmp_path / "two.pdf", [SMALL, SMALL])
    result = document("two.pdf", "--to", "doctags", "--max-tokens", max(len(tokens(answer)) for answer in answers) + 1)
    assert result.status == 1
    first, second = (tmp_path / "out" / "two.doctags").read_text().split("\n<page_break>\n")
    assert first == answers[0]
    assert second.startswith("<doctag><text>Cut") and second.rstrip().endswith("</text></doctag>")
    (line,) = [line for line in result.err.splitlines() if line.startswith("two.pdf")]
    assert line.startswith("two.pdf, page 2: cut after ") and line.endswith("; what was read is kept")
    assert "2 pages of 1 document, 1 of them cut; " in result.err


def test_bad_inputs_are_named_and_the_others_go_on(document, begun, tmp_path):
    (tmp_path / "locked.pdf").write_bytes(pdf_bytes([SMALL], ENCRYPTED))
    (tmp_path / "empty.pdf").touch()
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    write_pdf(tmp_path / "good.pdf", [SMALL])
    result = document("locked.pdf", "empty.pdf", "missing.pdf", "broken.png", "good.pdf")
    assert result.status == 1
    assert result.err.count("error: ") == 4 and "Traceback" not in result.err
    for problem in ("locked.pdf: an encrypted PDF", "empty.pdf: empty", "no folder or file 'missing.pdf'"):
        assert f"error: {problem}" in result.err
    assert "error: broken.png, page 1: " in result.err
    assert (tmp_path / "out" / "good.md").read_text() == "# Page 2\n"
    assert "2 pages of 2 documents, 1 not read; " in result.err
    assert document("good.pdf").status == 0


def test_a_run_that_was_ended_goes_on(document, begun, monkeypatch, tmp_path):
    """Twelve pages; the run ends at the fifth, as Ctrl-C would end it while a page is kept."""
    write_pdf(tmp_path / "twelve.pdf", [SMALL] * 12)
    original, kept = PageRecords.put, []

    def put(records, digest, reading):
        if len(kept) == 5:
            raise KeyboardInterrupt
        original(records, digest, reading)
        kept.append(reading.number)

    monkeypatch.setattr(PageRecords, "put", put)
    assert document("twelve.pdf", "--scale", "0.5").status == 130
    assert not (tmp_path / "out" / "twelve.md").exists()
    monkeypatch.setattr(PageRecords, "put", original)
    begun.clear()
    result = document("twelve.pdf", "--scale", "0.5")
    assert result.status == 0 and "12 pages of 1 document; 5 were read before; " in result.err
    assert len(begun) == 7
    held = sorted((tmp_path / "out" / ".pages").glob("*/0*.json"))
    assert [int(path.stem) for path in held] == list(range(1, 13))
    # The rows of each run count from 1, so the pages tell in which run and place they were read.
    left = [number for number in range(1, 13) if number not in kept]
    said = {**{number: number for number in kept}, **{number: place for place, number in enumerate(left, 1)}}
    expected = "\n\n".join(f"# Page {said[number]}" for number in range(1, 13))
    assert (tmp_path / "out" / "twelve.md").read_text() == f"{expected}\n"


def test_other_options_are_refused_and_other_content_is_read_again(document, begun, tmp_path):
    write_pdf(tmp_path / "a.pdf", [SMALL])
    assert document("a.pdf", "--scale", "0.5").status == 0
    assert_refused(document("a.pdf"), "out holds pages that were read with other options (scale)")
    write_pdf(tmp_path / "a.pdf", [SMALL, SMALL])
    result = document("a.pdf", "--scale", "0.5")
    assert result.status == 0 and "note: a.pdf has changed since it was read; its pages are read again" in result.err
    assert (tmp_path / "out" / "a.md").read_text() == "# Page 1\n\n# Page 2\n"
    copy = write_pdf(tmp_path / "copy.pdf", [SMALL, SMALL])
    write_pdf(tmp_path / "a.pdf", [MadePage(width=50, height=50)])
    result = document("a.pdf", "copy.pdf", "--scale", "0.5")  # what a.pdf was is still needed
    assert "a.pdf has changed" in result.err and "3 pages of 2 documents; 2 were read before; " in result.err
    os.replace(copy, tmp_path / "b.pdf")
    assert "nothing was left to read" in document("b.pdf", "--scale", "0.5").err
    assert len(begun) == 4
    (record,) = (tmp_path / "out" / ".pages").glob("*/00002.json")
    whole = record.read_text()
    for number, damaged in enumerate(("{", "[]", re.sub('"doctags": ".*?[^\\\\]",', '"doctags": null,', whole))):
        record.write_text(damaged)
        result = document("b.pdf", "--scale", "0.5")
        assert (result.status, len(begun)) == (0, 5 + number)
        assert "note: b.pdf, page 2: its record in out is damaged; it is read again\n" in result.err
    for file in (tmp_path / "out" / ".pages" / "outputs.jsonl", record.parent / "document.json"):
        file.unlink()
        os.mkfifo(file)  # which nobody writes
    assert_refused_late(document("b.pdf", "--scale", "0.5"), "no file that this command has written")


def assert_refused_late(result, problem):
    assert result.status == 2
    assert problem in result.err.splitlines()[-1] and "Traceback" not in result.err


def test_names_of_files_cannot_steer_a_terminal(document, begun, tmp_path):
    """Those in a folder may be anybody's."""
    (tmp_path / "in").mkdir()
    write_pdf(tmp_path / "in" / "a\x1b[2J\nb.pdf", [SMALL])
    result = document("in", "--max-tokens", 2)
    assert result.status == 1 and "a\\x1b[2J\\nb.pdf, page 1: cut after 2 tokens" in result.err
    assert "\x1b" not in result.err


def test_files_of_others_stay(document, begun, tmp_path):
    write_pdf(tmp_path / "a.pdf", [SMALL])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.md").write_text("mine")
    assert_refused_late(document("a.pdf"), "a.md exists already and is no file that this command has written")
    assert (tmp_path / "out" / "a.md").read_text() == "mine" and begun == []
    (tmp_path / "out" / "a.md").unlink()
    assert document("a.pdf").status == 0
    (tmp_path / "out" / "a.md").write_text("changed by hand")
    assert_refused_late(document("a.pdf"), "a.md exists already and is no file that this command has written")


def test_documents_of_one_name_do_not_take_each_others_place(document, begun, tmp_path):
    for folder, page in (("a", SMALL), ("b", MadePage(width=50, height=50))):
        (tmp_path / folder).mkdir()
        write_pdf(tmp_path / folder / "one.pdf", [page])
    assert document("a/one.pdf").status == 0
    refused = document("b/one.pdf")
    assert_refused_late(refused, f"out/one.md is the result of {tmp_path}/a/one.pdf, not of {tmp_path}/b/one.pdf; ")
    assert (tmp_path / "out" / "one.md").read_text() == "# Page 1\n"
    (tmp_path / "a" / "one.pdf").unlink()
    assert document("b/one.pdf").status == 0


def test_long_names_are_cut(document, begun, tmp_path):
    for letter in "ab":
        write_pdf(tmp_path / f"{'é' * 125}{letter}.pdf", [SMALL])
    assert document(".", "--to", "doctags", "--show").status == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_file())
    assert names == [f"{'é' * 113}.pdf-2.doctags", f"{'é' * 113}.pdf.doctags"]


def test_a_run_that_was_killed_before_it_could_note_anything_goes_on(document, begun, tmp_path):
    write_pdf(tmp_path / "a.pdf", [SMALL])
    (tmp_path / "out" / ".pages" / ".run.json.partial.0").mkdir(parents=True)
    assert document("a.pdf").status == 0
    with (tmp_path / "out" / ".pages" / "outputs.jsonl").open("a") as file:
        file.write('{"name": "b.md", "dig')  # cut
    for page in (MadePage(width=50, height=50), SMALL):
        write_pdf(tmp_path / "a.pdf", [page])
        assert document("a.pdf").status == 0
    assert (tmp_path / "out" / "a.md").read_text() == "# Page 1\n"


def test_many_documents_are_noted_in_linear_time(monkeypatch, tmp_path):
    reads = []
    original = page_records._read
    monkeypatch.setattr(page_records, "_read", lambda path: reads.append(path) or original(path))
    for _ in range(2):
        with closing(PageRecords(tmp_path)) as records:
            records.begin("model", {})
            for number in range(30):
                records.note_document(f"{number:032x}", f"/in/{number}.png", 1, set())
    assert len(reads) <= 4 * 30 + 4


def test_pages_are_shown_with_boxes(document, begun, tmp_path):
    write_pdf(tmp_path / "a.pdf", [SMALL])
    for _ in range(2):
        assert document("a.pdf", "--show").status == 0
    with Image.open(tmp_path / "out" / "a.shown" / "0001.png") as shown:
        assert shown.size == (120, 120)
        assert shown.getpixel((60, 12)) == (0xB7, 0x1C, 0x1C)  # the upper edge of the title's box
    index = (tmp_path / "out" / "a.shown" / "index.html").read_text()
    assert '<img alt="page 1" src="0001.png"' in index and "Page 1</li>" in index
    assert document(".", "--show").err.count("1 page of 1 document") == 1  # what is shown is no input
    (tmp_path / "out" / "a.shown" / "mine.txt").touch()
    assert_refused_late(document("a.pdf", "--show"), "a.shown exists already and is no folder of shown pages")


def test_images_within_pages_are_cropped_in_html(document, monkeypatch, tmp_path):
    answer = "<doctag><picture><loc_0><loc_0><loc_250><loc_500></picture></doctag>"
    force_tokens(monkeypatch, lambda key: tokens(answer))
    write_pdf(tmp_path / "a.pdf", [SMALL])
    assert document("a.pdf", "--to", "html").status == 0
    assert 'src="data:image/png;base64,' in (tmp_path / "out" / "a.html").read_text()


def test_what_cannot_be_done_is_refused_before_anything_is_read(document, tmp_path):
    write_pdf(tmp_path / "a.pdf", [SMALL])
    assert_refused(
        document("a.pdf", model=None), "the embedded demo model cannot read documents; name one with --model"
    )
    refused = document("a.pdf", model="demo")
    assert_refused(refused, "the embedded demo model cannot read documents; name one with --model: ibm-granite/")
    assert_refused(document("a.pdf", "--task", "ocr"), "the task 'ocr' needs a region")
    assert_refused(document("a.pdf", "--region", "0,0,9,9"), "so a region has no effect")
    assert_refused(document("a.pdf", "--scale", "0"), "scale is 0")
    assert_refused(document("a.pdf", "--batch-size", "0"), "--batch-size is 0")
    assert_refused(document(), "nothing to convert")
    assert_refused(document("missing.pdf"), "no folder or file 'missing.pdf'")
    assert_refused(document("--from-doctags", "a.pdf"), "--model has no effect with --from-doctags")
    (tmp_path / "out").write_text("")
    assert_refused(document("a.pdf"), "--out out is a file; name a folder")
    assert set(_TASKS) == set(PROMPTS)


def test_a_model_of_another_kind_is_named(document, monkeypatch, tmp_path):
    force_tokens(monkeypatch, lambda key: tokens("A red square.<|end_of_text|>"))
    write_pdf(tmp_path / "a.pdf", [SMALL, SMALL])
    assert document("a.pdf").err.count("no DocTags in the answer; use a model made for documents") == 1


@pytest.mark.slow
def test_the_demo_documents_are_converted(document, monkeypatch, tmp_path):
    """Read by a model that says what a perfect one would, they are what their DocTags are without a model."""
    (tmp_path / "in").mkdir()
    demo_documents.make_documents(tmp_path / "in")
    for name in ("paper", "manual", "report"):
        (tmp_path / "in" / f"{name}.pdf").unlink()
    texts = [path.read_text(encoding="utf-8") for path in sorted((tmp_path / "in").glob("[ft]*.doctags"))]
    pages = [
        part.removeprefix("<doctag>").removesuffix("</doctag>")
        for text in texts
        for part in text.strip().split("<page_break>")
    ]
    force_tokens(monkeypatch, lambda key: tokens(f"<doctag>{pages[key]}</doctag>"))
    result = document("in", "--scale", "0.5")
    assert result.status == 0, result.err  # no page is taken for a loop
    for name, text in zip(("figures", "tables"), texts, strict=True):
        assert (tmp_path / "out" / f"{name}.md").read_text(encoding="utf-8") == export(parse_doctags(text), "md") + "\n"


def test_names_of_results():
    stems = output_stems(
        ["in/a.pdf", "in/x/a.pdf", "a.pdf", "b.pdf", "b.png", "https://host/c.pdf?page=2", "A.tif"], ["in"]
    )
    assert list(stems.values()) == ["a.pdf", "x/a", "a.pdf-2", "b.pdf", "b.png", "c", "A.tif"]
