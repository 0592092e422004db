"""`document --pages`, `--password`, `--password-file` and `--prompt`; and the same from Python."""

import json

import numpy as np
import pytest
from support.command_lines import assert_refused, run
from support.document_checkpoint import tokens
from support.forced import force_tokens
from support.locked_pdfs import locked_pdf_bytes
from support.made_pdfs import MadePage, pdf_bytes, write_pdf

from mlx_smolvlm import load, read_document
from mlx_smolvlm.documents.page_file import on_page
from mlx_smolvlm.documents.page_files import open_pages
from mlx_smolvlm.documents.page_ranges import page_ranges
from mlx_smolvlm.documents.tasks import PageTask

SMALL = [MadePage(width=60 + number, height=60) for number in range(5)]
PASSWORD = "tea at nine"


@pytest.fixture
def document(monkeypatch, capsys, tmp_path, document_checkpoint):
    """A function from arguments, and what the model says on every page, to the run's result."""
    monkeypatch.chdir(tmp_path)
    answers = ["<doctag><title>Tea</title>\n</doctag>"]
    force_tokens(monkeypatch, lambda key: tokens(answers[-1]))

    def call(*arguments, answer=answers[0]):
        answers.append(answer)
        fixed = ("--model", document_checkpoint, "--scale", "0.5", "--out", "out")
        return run(monkeypatch, capsys, "document", *arguments, *fixed)

    return call


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("3", (3,)),
        ("2-4,1", (1, 2, 3, 4)),
        ("4-", (4, 5)),
        (" 2 , 2-3", (2, 3)),
        ([5, 1], (1, 5)),
    ],
)
def test_pages_are_chosen(text, numbers):
    assert page_ranges(text).numbers("a.pdf", 5) == numbers


@pytest.mark.parametrize(
    "text", ["", "0", "3-2", "a", "1,,2", "-3", "1-2-3", "1.5", [], [0], [True], 3, ["1"], "\u0661"]
)
def test_what_names_no_pages_is_refused(text):
    with pytest.raises(ValueError, match="pages is "):
        page_ranges(text)


@pytest.mark.parametrize(("text", "missing"), [("6", 6), ("1-999999999", 999999999), ("2,7-", 7)])
def test_pages_that_are_not_there_are_refused_by_name(text, missing):
    with pytest.raises(
        ValueError, match=rf"^a\.pdf: there is no page {missing}, which '{text}' asks for: it has 5 pages$"
    ):
        page_ranges(text).numbers("a.pdf", 5)


def test_chosen_pages_keep_their_numbers_and_their_records(document, tmp_path):
    write_pdf(tmp_path / "a.pdf", SMALL)
    assert "2 pages of 1 document; " in document("a.pdf", "--pages", "2,4", "--to", "json", "--show").err
    assert [page["page_no"] for page in json.loads((tmp_path / "out" / "a.json").read_text())["pages"]] == [2, 4]
    shown = sorted(path.name for path in (tmp_path / "out" / "a.shown").iterdir())
    assert shown == ["0002.png", "0004.png", "index.html"]
    assert "3 pages of 1 document; 1 were read before; " in document("a.pdf", "--pages", "3-").err
    write_pdf(tmp_path / "b.pdf", SMALL[:2])
    some = document("a.pdf", "b.pdf", "--pages", "3-")
    assert some.status == 1 and "error: b.pdf: there is no page 3, which '3-' asks for: it has 2 pages\n" in some.err
    assert document("b.pdf", "--pages", "3").status == 2
    assert_refused(document("b.pdf", "--pages", "0"), "pages is '0': 0 is no range; pages count from 1, upwards")


def test_a_password_opens_documents_and_is_kept_nowhere(document, tmp_path):
    (tmp_path / "locked.pdf").write_bytes(locked_pdf_bytes(SMALL[:1], PASSWORD))
    (tmp_path / "word").write_text(f"{PASSWORD}\nsecond line\n")
    refused = document("locked.pdf")
    assert refused.status == 2 and "locked.pdf: an encrypted PDF; give its password (--password-file" in refused.err
    wrong = document("locked.pdf", "--password", "other")
    assert wrong.status == 2 and wrong.err == "error: locked.pdf: an encrypted PDF, and the password does not open it\n"
    read = document("locked.pdf", "--password-file", "word", "--show")
    assert read.status == 0 and PASSWORD not in read.err and "no document needs" not in read.err
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or PASSWORD.encode() not in path.read_bytes()
    assert "nothing was left to read" in document("locked.pdf", "--password", PASSWORD).err
    write_pdf(tmp_path / "open.pdf", SMALL[:1])
    assert "note: no document needs the password\n" in document("open.pdf", "--password", PASSWORD).err
    both = document("open.pdf", "--password", PASSWORD, "--password-file", "word")
    assert_refused(both, "--password and --password-file are both given")
    assert_refused(document("open.pdf", "--password", ""), "--password is empty")
    (tmp_path / "word").write_bytes(b"\xff\n")
    assert_refused(document("open.pdf", "--password-file", "word"), "the first line is not UTF-8 text")


def test_a_locked_page_has_the_pixels_of_an_open_one():
    content = locked_pdf_bytes(SMALL[:1], PASSWORD)
    with open_pages(content, password=PASSWORD) as locked, open_pages(pdf_bytes(SMALL[:1])) as plain:
        assert locked.needed_password and not plain.needed_password
        assert np.array_equal(np.asarray(locked.image(1)), np.asarray(plain.image(1)))


def test_an_own_prompt_takes_the_place_of_the_task(document, tmp_path):
    write_pdf(tmp_path / "a.pdf", SMALL[:1])
    asked = ("--prompt", "What is sold?", "--region", "0,0,250,250")
    result = document("a.pdf", *asked, answer="Tea.<|end_of_text|>")
    assert result.status == 0 and "no DocTags in the answer" not in result.err
    assert (tmp_path / "out" / "a.md").read_text() == "Tea.\n"
    assert "other options (region, prompt)" in document("a.pdf").err
    refused = document("a.pdf", "--prompt", "What is sold?", "--task", "page")
    assert_refused(refused, "--task and --prompt are both given")
    assert_refused(document("a.pdf", "--prompt", " "), "prompt is ' ', expected what to ask about each page")
    assert_refused(document("a.pdf", "--prompt", "<image><image>"), "so it has room for one <image>")
    assert_refused(document("--from-doctags", "x", "--prompt", "a"), "has no effect with --from-doctags")
    assert PageTask(own_prompt="Which <loc_1>?").prompt == "Which <loc_1>?"


def test_from_python(document, tmp_path, document_checkpoint):
    path = tmp_path / "locked.pdf"
    path.write_bytes(locked_pdf_bytes(SMALL, PASSWORD))
    model, processor = load(document_checkpoint, dtype="float32")
    read = read_document(model, processor, tmp_path, pages="2,4", password=PASSWORD, prompt="What is it?", scale=0.5)
    assert [(page.number, page.error) for page in read] == [(2, None), (4, None)]
    (reading,) = read_document(model, processor, path, pages=[6], password=PASSWORD)
    assert (reading.number, str(reading.error)) == (
        0,
        f"{path}: there is no page 6, which '6' asks for: it has 5 pages",
    )
    with pytest.raises(TypeError, match="password is of type int, expected a string"):
        read_document(model, processor, path, password=3)


def test_a_place_is_named_once():
    for reason in ("a.pdf, page 2: bad", "a.pdf: bad", "bad"):
        assert on_page(reason, "a.pdf", 2) == "a.pdf, page 2: bad"
    assert on_page("a.pdf: bad", "a.pdf", None) == "a.pdf: bad"
