"""docling's remote pipeline against the server: what it sends for a page gives what `read_document` gives."""

import io

import pytest
from support.document_checkpoint import tokens
from support.forced import force_tokens
from support.made_pdfs import MadePage, pdf_bytes
from support.server import image_part, question, running_server

from mlx_smolvlm import read_document
from mlx_smolvlm.documents.page_files import open_pages

DOCTAGS = "<doctag><otsl><loc_60><loc_110><loc_440><loc_180><ched>Tea<nl></otsl>\n</doctag>"
PDF = pdf_bytes([MadePage(["Prices"], width=120, height=90)])


def asked(pdf, **fields):
    """The request of docling/utils/api_image_request.py: a page as RGBA PNG, before the prompt, and `params`."""
    with open_pages(pdf) as pages:
        page = pages.image(1).convert("RGBA")
    file = io.BytesIO()
    page.save(file, "PNG")
    messages = question("Convert this page to docling.", image_part(file.getvalue()))
    return {"messages": messages, "temperature": 0.0, "max_tokens": 8192, "skip_special_tokens": False, **fields}


@pytest.fixture
def served(document_pair, monkeypatch):
    """A server whose answers are these DocTags, and what follows them."""
    force_tokens(monkeypatch, lambda key: tokens(f"{DOCTAGS}<|end_of_text|>"))
    with running_server(document_pair) as server:
        yield server


def test_doclings_request_gives_the_direct_result(served, document_pair):
    (direct,) = read_document(*document_pair, PDF)
    assert direct.doctags == DOCTAGS
    stopped = served.chat(**asked(PDF, stop=["</doctag>", "<|end_of_text|>"]))["choices"][0]
    assert (stopped["message"]["content"], stopped["finish_reason"]) == (DOCTAGS.removesuffix("</doctag>"), "stop")
    whole = served.chat(**asked(PDF))["choices"][0]
    assert (whole["message"]["content"], whole["finish_reason"]) == (f"{DOCTAGS}<|end_of_text|>", "stop")
    pieces = [chunk["choices"][0]["delta"].get("content") or "" for chunk in served.chunks(**asked(PDF))]
    assert "".join(pieces) == f"{DOCTAGS}<|end_of_text|>"


def test_a_cut_page_is_told(served, document_pair):
    cut = served.chat(**asked(PDF, max_tokens=5))["choices"][0]
    assert cut["finish_reason"] == "length"
    (direct,) = read_document(*document_pair, PDF, max_tokens=5)
    assert cut["message"]["content"] == direct.doctags and direct.is_partial


def test_the_page_is_the_same_prompt(document_pair):
    """Without forced tokens: the image that goes over HTTP is the image that is read directly."""
    with running_server(document_pair) as server:
        served = server.chat(**asked(PDF, max_tokens=12))
    (direct,) = read_document(*document_pair, PDF, max_tokens=12)
    assert served["usage"]["prompt_tokens"] == direct.prompt_tokens
    assert served["choices"][0]["message"]["content"].startswith(direct.doctags) and direct.doctags
