"""Encrypted PDFs in an index."""

from support.command_lines import assert_refused, run
from support.locked_pdfs import locked_pdf_bytes
from support.made_pdfs import MadePage, write_pdf
from support.retrievers import write_retriever


def test_locked_documents_are_indexed_and_shown_with_their_password(monkeypatch, capsys, tmp_path):
    def command(module, *arguments):
        return run(monkeypatch, capsys, module, *arguments)

    model = write_retriever(tmp_path / "retriever")
    (tmp_path / "locked.pdf").write_bytes(locked_pdf_bytes([MadePage(["Costs"], 100, 130)], "tea"))
    (tmp_path / "word").write_text("tea\n")
    options = ("--out", tmp_path / "pages", "--model", model, "--password-file", tmp_path / "word")
    made = command("index", tmp_path / "locked.pdf", *options)
    assert (made.status, made.err) == (0, "") and "1 pages of 1 document (1 new)" in made.out
    shown = ("--html", tmp_path / "found.html", "--quiet")
    assert command("search", tmp_path / "pages", "costs", *shown).status == 0
    assert "No image" in (tmp_path / "found.html").read_text()
    assert command("search", tmp_path / "pages", "costs", *shown, "--password", "tea").status == 0
    assert "No image" not in (tmp_path / "found.html").read_text()
    unused = command("search", tmp_path / "pages", "costs", "--password", "tea")
    assert_refused(unused, "the password opens PDFs for --html and --answer, and neither is given")
    assert all(b"tea" not in path.read_bytes() for path in (tmp_path / "pages").iterdir() if path.suffix == ".json")
    write_pdf(tmp_path / "open.pdf", [MadePage(["Costs"], 100, 130)])
    assert "note: no document needs the password" in command("index", tmp_path / "open.pdf", *options).err
