"""`-` as the name of what is written: standard output for one text, else refused; no file is called so."""

import pytest
from support.command_lines import assert_refused, run

REFUSED = "- would be standard output, where this is not written to; name a file or folder"


@pytest.mark.parametrize(
    "words",
    [
        "index documents --out -",
        "index --out pages --export-lancedb -",
        "search pages what --html -",
        "train --data rows.jsonl --adapter-out -",
        "train --data rows.jsonl --adapter-out labels --merge -",
        "train --data rows.jsonl --adapter-out labels --plot -",
        "train --check --data rows.jsonl --html -",
        "convert --hf-path model --mlx-path -",
        "convert --adapter-path adapter --export-adapter -",
        "convert --compare a b --plot -",
        "evaluate mini --out -",
        "evaluate mini --make -",
        "benchmark --folder -",
        "benchmark --json -",
        "benchmark --plot -",
    ],
)
def test_nothing_is_called_like_standard_output(monkeypatch, capsys, tmp_path, words):
    monkeypatch.chdir(tmp_path)
    assert_refused(run(monkeypatch, capsys, *words.split()), REFUSED)
    assert not list(tmp_path.iterdir())


def test_documents_that_are_read_go_into_a_folder(monkeypatch, capsys, tmp_path):
    result = run(monkeypatch, capsys, "document", "report.pdf", "--model", "x", "--out", "-")
    assert_refused(result, "--out - is for --from-doctags; documents that are read go into a folder: --out DIR")


def test_converted_doctags_go_to_standard_output(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.doctags").write_text("<doctag><text>Hello</text></doctag>", encoding="utf-8")
    result = run(monkeypatch, capsys, "document", "--from-doctags", "page.doctags", "--out", "-")
    assert (result.status, result.out) == (0, "Hello\n")
    assert [path.name for path in tmp_path.iterdir()] == ["page.doctags"]
