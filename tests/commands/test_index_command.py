"""`index` and `search` from the command line, on a tiny ColIdefics3 checkpoint."""

import json
import os

import numpy as np
import pytest
from PIL import Image
from support.command_lines import assert_refused, run
from support.made_adapters import write_peft
from support.made_pdfs import ENCRYPTED, MadePage, pdf_bytes, write_pdf
from support.retrievers import write_retriever

from mlx_smolvlm import load_retriever
from mlx_smolvlm.documents.page_files import open_pages


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_retriever(tmp_path_factory.mktemp("model") / "retriever")


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    write_pdf(folder / "report.pdf", [MadePage(["Costs", "1 2 3"], 100, 130), MadePage(["Yields"], 100, 130)])
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)).save(folder / "photo.png")
    (folder / "notes.txt").write_text("nothing to see")
    return folder


@pytest.fixture
def command(monkeypatch, capsys):
    return lambda module, *arguments: run(monkeypatch, capsys, module, *arguments)


@pytest.fixture(scope="module")
def index(model, documents, tmp_path_factory):
    from mlx_smolvlm import index as module

    folder = tmp_path_factory.mktemp("made") / "pages"
    arguments = module._parser().parse_args([str(documents), "--out", str(folder), "--model", str(model), "--quiet"])
    assert module._run(arguments) == 0
    return folder


def test_search_ranks_pages_as_brute_force_does(command, model, documents, index):
    retriever = load_retriever(model)
    (query,) = retriever.embed_queries(["yields 2023"])
    images = {(str(documents / "photo.png"), 1): Image.open(documents / "photo.png")}
    with open_pages(documents / "report.pdf") as pages:
        images |= {(str(documents / "report.pdf"), number): pages.image(number) for number in (1, 2)}
    stored = [vectors.astype(np.float16) for vectors in retriever.embed_pages(list(images.values()))]
    scores = dict(zip(images, retriever.score([query], stored)[0], strict=True))
    result = command("search", index, "yields 2023", "--json", "--top-k", 9)
    assert result.status == 0
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [list(line) for line in lines] == [["path", "page", "score"]] * 3
    assert [(line["path"], line["page"]) for line in lines] == sorted(scores, key=scores.get, reverse=True)
    assert all(abs(line["score"] - scores[line["path"], line["page"]]) < 1e-4 for line in lines)
    table = command("search", index, "yields 2023", "--top-k", 2).out.splitlines()
    assert table[0].split() == ["score", "page", "document"]
    assert [line.split()[1:] for line in table[1:]] == [[str(line["page"]), line["path"]] for line in lines[:2]]


def test_running_it_again_brings_the_index_up_to_date(command, model, documents, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("report.pdf", "photo.png"):
        (folder / name).write_bytes((documents / name).read_bytes())
    first = command("index", folder, "--out", tmp_path / "pages", "--model", model)
    assert (first.status, first.err) == (0, "")
    assert "pages: 3 pages of 2 documents (2 new); read 3 pages in " in first.out
    (folder / "broken.pdf").write_bytes(pdf_bytes([MadePage()], ENCRYPTED))
    (folder / "photo.png").unlink()
    again = command("index", folder, "--out", tmp_path / "pages", "--prune")
    assert again.status == 1
    assert "2 pages of 1 document (1 unchanged, 1 removed); 1 with errors" in again.out
    assert again.err == f"error: {folder / 'broken.pdf'}: an encrypted PDF; save a copy without a password\n"


def test_an_index_made_otherwise_is_refused_by_name(command, model, documents, index, tmp_path):
    adapter = write_peft(tmp_path / "adapter", {"model.text_model.layers.0.self_attn.q_proj": (96, 96)})
    narrow = write_retriever(tmp_path / "narrow", size=64)
    for options, problem in (
        (["--prompt-format", "current"], "was made with --prompt-format training, not current"),
        (["--model", model, "--adapter-path", adapter], "was made with another model"),
        (["--model", narrow], "holds vectors of 128 numbers, and the model makes 64"),
        (["--dtype", "float16"], "was made with another model (--model"),
    ):
        assert_refused(command("search", index, "costs", *options), problem)
        assert_refused(command("index", documents, "--out", index, *options), problem)
    assert_refused(
        command("index", documents, "--out", index, "--pool-factor", 2), "was made with --pool-factor 1, not 2"
    )


def test_pools_and_other_prompts(command, model, documents, tmp_path):
    options = ["--prompt-format", "current", "--pool-factor", "3", "--quiet"]
    made = command("index", documents, "--out", tmp_path / "pages", "--model", model, *options)
    assert (made.status, made.out) == (0, "")
    (vectors,) = (tmp_path / "pages").glob("*.npy")
    assert np.load(vectors).shape[0] < 3 * 130 / 3
    assert len(command("search", tmp_path / "pages", "costs", "--json").out.splitlines()) == 3


def test_bad_input_is_one_line(command, model, documents, index, checkpoint, tmp_path):
    out = tmp_path / "out"
    for arguments, problem in (
        ([documents, "--out", out], "name the ColSmol model that makes the vectors by --model"),
        ([documents, "--out", out, "--model", checkpoint("smolvlm_256m")], "answers questions and makes no vectors"),
        ([documents, "--out", documents, "--model", model], "exists already and is no index of pages"),
        ([tmp_path / "nowhere", "--out", out, "--model", model], "no folder or file"),
        (["--out", out, "--model", model], "nothing to do"),
        (
            [documents, "--out", out, "--model", model, "--pool-factor", 0],
            "--pool-factor is 0, expected 1 (none) to 16",
        ),
        ([documents, "--out", "", "--model", model], "--out is empty"),
    ):
        assert_refused(command("index", *arguments), problem)
    assert not os.path.lexists(out)
    for arguments, problem in (
        ([tmp_path / "nowhere", "costs"], "is no index of pages: no such folder"),
        ([index, "what is <image>"], "holds <image>, which stands for an image"),
        ([index, "word " * 10_000], "tokens, and the model's context is 8192; shorten it"),
        ([index, "costs", "--top-k", 0], "--top-k is 0, expected at least 1"),
        ([index, "costs", "--model", tmp_path / "gone"], "no folder"),
    ):
        assert_refused(command("search", *arguments), problem)


def test_generate_names_the_right_command(command, model):
    assert_refused(command("generate", "--model", model, "--prompt", "a"), "use python -m mlx_smolvlm.index and")


def test_a_model_that_has_moved_is_named_again(command, documents, tmp_path):
    old, new = write_retriever(tmp_path / "old"), tmp_path / "new"
    command("index", documents, "--out", tmp_path / "pages", "--model", old, "--quiet")
    old.rename(new)
    assert_refused(command("search", tmp_path / "pages", "costs"), "was made with it; name its new place by --model")
    assert command("search", tmp_path / "pages", "costs", "--model", new).status == 0
