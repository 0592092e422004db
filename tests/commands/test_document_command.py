"""`python -m mlx_smolvlm.document --from-doctags`."""

import io
import json
import sys

import pytest
from support.command_lines import assert_refused, run

DOCTAGS = "<doctag><title>Tea — house</title><text>Open from nine.</text></doctag>"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "page.doctags"
    path.write_text(DOCTAGS, encoding="utf-8")
    return path


def convert(monkeypatch, capsys, *arguments):
    return run(monkeypatch, capsys, "document", *arguments)


def test_markdown_is_printed(monkeypatch, capsys, file):
    assert convert(monkeypatch, capsys, "--from-doctags", file) == (0, "# Tea — house\n\nOpen from nine.\n", "")


def test_every_format_is_written_into_a_folder_or_file(monkeypatch, capsys, file, tmp_path):
    for to in ("md", "html", "json"):
        assert convert(monkeypatch, capsys, "--from-doctags", file, "--to", to, "--out", tmp_path) == (0, "", "")
    assert (tmp_path / "page.md").read_bytes() == "# Tea — house\n\nOpen from nine.\n".encode()
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert json.loads((tmp_path / "page.json").read_text(encoding="utf-8"))["pages"]
    convert(monkeypatch, capsys, "--from-doctags", file, "--to", "doctags", "--out", tmp_path / "clean")
    assert (tmp_path / "clean").read_text(encoding="utf-8") == DOCTAGS.replace("</title>", "</title>\n") + "\n"


def test_standard_input_is_read(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\ufeff<text>Cut in the mid".encode())))
    converted = convert(monkeypatch, capsys, "--from-doctags", "-")
    assert converted.out == "Cut in the mid\n"
    assert converted.err == "the DocTags end within text: closed, with all text there is\n"


def test_no_file_is_replaced(monkeypatch, capsys, file, tmp_path):
    refused = convert(monkeypatch, capsys, "--from-doctags", file, "--to", "doctags", "--out", tmp_path)
    assert_refused(refused, "page.doctags exists already")
    assert file.read_text(encoding="utf-8") == DOCTAGS


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff\xfe<", "byte 0 is not UTF-8 text"),
        (b" \n", "is empty"),
        (b"%PDF-1.4\n1 0 obj\n", "is a PDF, not DocTags; read it with a model: INPUT in the place of --from-doctags"),
        (None, "No such file or directory"),
    ],
)
def test_what_is_no_doctags_is_refused(monkeypatch, capsys, tmp_path, content, problem):
    if content is not None:
        (tmp_path / "bad").write_bytes(content)
    assert_refused(convert(monkeypatch, capsys, "--from-doctags", tmp_path / "bad"), problem)


def test_a_folder_with_a_slash_is_made(monkeypatch, capsys, file, tmp_path):
    new = f"{tmp_path / 'new' / 'folder'}/"
    assert convert(monkeypatch, capsys, "--from-doctags", file, "--out", new) == (0, "", "")
    assert (tmp_path / "new" / "folder" / "page.md").is_file()
    assert_refused(convert(monkeypatch, capsys, "--from-doctags", file, "--out", ""), "--out is empty; name a folder")


def test_nothing_to_convert_is_refused(monkeypatch, capsys):
    assert_refused(convert(monkeypatch, capsys), "name a file of DocTags: --from-doctags FILE")


def test_a_folder_is_refused(monkeypatch, capsys, tmp_path):
    assert_refused(convert(monkeypatch, capsys, "--from-doctags", tmp_path), "is a folder; name a file of DocTags")
    assert_refused(convert(monkeypatch, capsys, "--from-doctags", ""), "--from-doctags is empty")
