"""`--compare` of checkpoints that find pages."""

import json

import pytest
from support.command_lines import assert_refused, run
from support.made_pdfs import MadePage, write_pdf
from support.retrievers import write_retriever

from mlx_smolvlm.convert import QuantizationOptions, convert_checkpoint


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    write_pdf(folder / "report.pdf", [MadePage([f"Page {number}"], 100, 130) for number in range(3)])
    (folder / "queries.txt").write_text("Page 1\n\nblue square\n")
    return folder


def test_vectors_are_compared_on_pages(data, tmp_path, monkeypatch, capsys):
    folder = write_retriever(tmp_path / "retriever")
    convert_checkpoint(folder, tmp_path / "small", quantization=QuantizationOptions(bits=8, group_size=32))

    def compared(other, *options):
        result = run(monkeypatch, capsys, "convert", "--compare", folder, other, "--data", data, *options)
        assert result.status == 0, result
        return result.out

    same, small = (json.loads(compared(other, "--json")) for other in (folder, tmp_path / "small"))
    assert (same["num_pages"], same["num_queries"], same["measured_on"]) == (3, 2, data.name)
    assert same["page_cosine_least"] == pytest.approx(1, abs=1e-5)
    assert (same["same_best_page"], same["score_difference"]) == (1, 0)
    assert 0.99 < small["page_cosine_least"] < small["page_cosine_mean"] < 0.99999
    assert 0 < small["score_difference"] < 0.05
    assert "measured on" in compared(tmp_path / "small")
    for options, problem in (
        ([], "name a folder of PDFs and images to compare on by --data DIR"),
        (["--data", data, "--plot", tmp_path / "a.png"], "finds pages and answers nothing; leave --plot out"),
    ):
        refused = run(monkeypatch, capsys, "convert", "--compare", folder, folder, *options)
        assert_refused(refused, problem)
