"""`index` and `search` from the command line, on a tiny ColIdefics3 checkpoint."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from support.command_lines import assert_refused, run
from support.made_adapters import write_peft
from support.made_pdfs import ENCRYPTED, MadePage, pdf_bytes, write_pdf
from support.page_indexes import run_index, write_documents
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
    assert again.err.startswith(f"error: {folder / 'broken.pdf'}: an encrypted PDF; give its password (--password-file")


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
        (
            [documents, "--out", out, "--model", "demo"],
            "the embedded demo model makes no vectors; name a",
        ),
        ([documents, "--out", out, "--model", checkpoint("smolvlm_256m")], "answers questions and makes no vectors"),
        ([documents, "--out", documents, "--model", model], "exists already and is no index of pages"),
        ([tmp_path / "nowhere", "--out", out, "--model", model], "no folder or file"),
        (["--out", out, "--model", model], "nothing to do"),
        (
            [documents, "--out", out, "--model", model, "--pool-factor", 0],
            "--pool-factor is 0, expected 1 (none) to 16",
        ),
        ([documents, "--out", "", "--model", model], "--out is empty"),
        (["--out", out, "--model", model, "--prune"], "is no index of pages"),
        ([documents, "--out", out, "--model", ""], "--model is empty"),
    ):
        assert_refused(command("index", *arguments), problem)
    assert not os.path.lexists(out)
    for arguments, problem in (
        ([tmp_path / "nowhere", "costs"], "is no index of pages: no such folder"),
        ([index, "what is <image>"], "holds <image>, which stands for an image"),
        ([index, "word " * 10_000], "tokens, and the model's context is 8192; shorten it"),
        ([index, "costs", "--top-k", 0], "--top-k is 0, expected at least 1"),
        ([index, "costs", "--html", ""], "--html is empty"),
        ([index, "costs", "--answer", ""], "--answer is empty"),
        ([index, "costs", "--model", tmp_path / "gone"], "no folder"),
    ):
        assert_refused(command("search", *arguments), problem)


def test_html_shows_the_pages_and_where_words_matched(command, index, documents, tmp_path):
    file = tmp_path / "found.html"
    result = command("search", index, "<b>yields</b> & costs", "--html", file, "--top-k", 2, "--json")
    assert result.status == 0
    page = file.read_text(encoding="utf-8")
    assert "&lt;b&gt;yields&lt;/b&gt; &amp; costs" in page
    assert "<b>" not in page
    assert "<script" not in page
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)  # nothing from elsewhere
    assert page.count("<section>") == 2
    assert page.count('<img alt="page') == 2
    assert page.count('class="map ') == 2 * 4  # the words together, and each of three
    maps = re.findall(r'class="map m1" alt="" src="data:image/png;base64,([^"]+)"', page)
    alpha = np.asarray(Image.open(io.BytesIO(base64.b64decode(maps[0]))))[..., 3]
    assert alpha.min() < 20 < 150 < alpha.max()
    assert command("search", index, "costs", "--html", file, "--json").status == 0  # its own is replaced
    (tmp_path / "mine.html").write_text("<html>")
    assert_refused(command("search", index, "costs", "--html", tmp_path / "mine.html"), "is no page of search results")
    assert_refused(command("search", index, "costs", "--html", tmp_path / "no" / "a.html"), "no folder")


def test_names_that_are_not_utf_8_are_given_whole(command, model, tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        Image.new("RGB", (30, 30), "red").save(os.fsdecode(name), "PNG")
    except OSError:
        pytest.skip("the file system takes UTF-8 only")
    out, target = tmp_path / "pages", tmp_path / "lance"
    assert command("index", tmp_path, tmp_path / "missing", "--out", out, "--model", model, "--quiet").status == 1
    found = command("search", out, "costs", "--json").out
    assert found.isascii() and os.fsencode(json.loads(found)["path"]) == name
    pytest.importorskip("lancedb")
    exported = command("index", "--out", out, "--export-lancedb", target, "--quiet")
    assert (exported.status, target.exists()) == (2, False)
    assert "is not UTF-8, and LanceDB holds no other; rename the file" in exported.err
    inside = command("index", "--out", out, "--export-lancedb", out / "lance")
    assert_refused(inside, "is the index or within it")


def test_one_input_that_is_missing_loses_none_of_the_others(command, model, documents, tmp_path):
    done = command("index", tmp_path / "no", documents / "photo.png", "--out", tmp_path / "pages", "--model", model)
    assert done.status == 1
    assert "error: no folder or file" in done.err and "1 page" in done.out


def test_pdfs_without_their_reader_are_one_line(command, model, documents, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    refused = command("index", documents, "--out", tmp_path / "pages", "--model", model)
    assert refused.status == 2
    assert refused.err.count("PDFs are read by pypdfium2: pip install") == 1


def test_html_says_which_documents_have_changed(command, model, tmp_path):
    image = tmp_path / "in" / "one.png"
    image.parent.mkdir()
    Image.new("RGB", (30, 30), "red").save(image)
    Image.new("RGB", (30, 30), "blue").save(image.with_name("two.png"))
    command("index", image.parent, "--out", tmp_path / "pages", "--model", model, "--quiet")
    Image.new("RGB", (30, 30), "green").save(image)
    image.with_name("two.png").unlink()
    command("search", tmp_path / "pages", "costs", "--html", tmp_path / "found.html", "--json")
    page = (tmp_path / "found.html").read_text(encoding="utf-8")
    assert "one.png has changed since it was indexed" in page
    assert "two.png: no such file" in page


def test_an_answer_from_the_best_pages(command, index):
    question = "What color is it?"
    result = command("search", index, question, "--answer", "demo", "--max-tokens", 1)
    assert result.status == 0
    _, answer = result.out.split("\n\n")
    assert answer.startswith("Answer, from ")
    assert len(answer.splitlines()) == 2
    lines = command("search", index, question, "--answer", "demo", "--answer-pages", 1, "--json").out.splitlines()
    last, first = json.loads(lines[-1]), json.loads(lines[0])
    assert last["answer"]
    assert last["pages"] == [{"path": first["path"], "page": first["page"]}]
    assert_refused(command("search", index, question, "--answer-pages", 1), "--answer-pages is about --answer MODEL")
    assert_refused(command("search", index, question, "--max-tokens", 1), "--max-tokens is about --answer MODEL")
    assert_refused(command("search", index, " ", "--answer", "demo"), "the question is empty")
    assert_refused(command("search", index, question, "--answer", "demo", "--answer-pages", 0), "expected at least 1")


def test_a_model_that_finds_pages_cannot_answer(command, model, index):
    assert_refused(command("search", index, "costs", "--answer", model), "finds pages and makes no text")


LANCE = """
import json, sys
from pathlib import Path
from mlx_smolvlm.retrieval.lance_index import LanceIndex, export_lancedb, is_lancedb
from mlx_smolvlm.retrieval.page_index import PageIndex
import numpy as np
index, target = map(Path, sys.argv[1:])
export_lancedb(index, target)
export_lancedb(index, target)  # its own is replaced
assert is_lancedb(target)
plain, lance = PageIndex(index), LanceIndex(target)
assert (lance.settings, lance.num_pages) == (plain.settings, plain.num_pages)
for seed in range(2):
    query = np.random.default_rng(seed).standard_normal((6, plain.settings.vector_size)).astype(np.float32)
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    for top_k in (7, 100):
        one, other = plain.search(query, top_k), lance.search(query, top_k)
        assert [(r.path, r.page, r.digest) for r in one] == [(r.path, r.page, r.digest) for r in other]
        assert np.allclose([r.score for r in one], [r.score for r in other], atol=1e-4)
print("equal")
"""


@pytest.mark.slow
def test_a_lancedb_export_finds_the_same(tmp_path):
    """In a process of its own: LanceDB keeps a thread."""
    pytest.importorskip("lancedb")
    paths = write_documents(tmp_path / "in", [9, 1, 30])
    run_index(tmp_path / "index", [*paths, shutil.copy(paths[0], tmp_path / "in" / "twice.tif")])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", LANCE, tmp_path / "index", tmp_path / "lance"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("equal\n", "")


def test_an_export_replaces_nothing_of_others(command, model, documents, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    arguments = [documents, "--out", tmp_path / "pages", "--model", model, "--export-lancedb", tmp_path / "mine"]
    assert_refused(command("index", *arguments), "exists already and was not exported from an index")
    assert not (tmp_path / "pages").exists()


def test_generate_names_the_right_command(command, model):
    assert_refused(command("generate", "--model", model, "--prompt", "a"), "use python -m mlx_smolvlm.index and")


def test_a_model_that_has_moved_is_named_again(command, documents, tmp_path):
    old, new = write_retriever(tmp_path / "old"), tmp_path / "new"
    command("index", documents, "--out", tmp_path / "pages", "--model", old, "--quiet")
    old.rename(new)
    assert_refused(command("search", tmp_path / "pages", "costs"), "was made with it; name its new place by --model")
    assert command("search", tmp_path / "pages", "costs", "--model", new).status == 0
