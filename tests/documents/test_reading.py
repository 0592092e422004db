"""Pages read with forced answers: what comes of a page, in which order, and what goes wrong with one alone."""

import threading
from dataclasses import replace
from threading import Event

import pytest
from PIL import Image
from support.document_checkpoint import TAGS, tokens
from support.forced import force_tokens
from support.made_pdfs import ENCRYPTED, MadePage, pdf_bytes

from mlx_smolvlm import BatchRequest, Rows, read_document, stream_generate
from mlx_smolvlm.documents.reading import MAX_PAGE_TOKENS

PAGE = "<doctag><text><loc_1><loc_2><loc_30><loc_40>Page {}</text>\n</doctag>"
SMALL = MadePage(["small"], width=60, height=60)


def pages_read(document_pair, sources, **keywords):
    return list(read_document(*document_pair, sources, scale=0.5, **keywords))


def test_pages_come_in_order_whatever_their_length(document_pair, monkeypatch):
    longer = {index: "l" * (9 - 2 * index) for index in range(5)}
    force_tokens(monkeypatch, lambda key: tokens(PAGE.format(f"{key} {longer[key]}")))
    found = pages_read(document_pair, pdf_bytes([SMALL] * 5))
    assert [page.doctags for page in found] == [PAGE.format(f"{index} {longer[index]}") for index in range(5)]
    assert [page.number for page in found] == [1, 2, 3, 4, 5]
    assert all(page.finish_reason == "stop" and not page.is_partial and page.size == (30, 30) for page in found)
    assert all(page.completion_tokens == len(tokens(page.doctags)) for page in found)


def test_every_tag_survives_and_nothing_follows_the_end(document_pair, monkeypatch):
    everything = "".join(tag for tag in TAGS if tag not in ("<doctag>", "</doctag>"))
    force_tokens(monkeypatch, lambda key: tokens(f"<doctag>{everything}</doctag><text>too late</text>"))
    (page,) = pages_read(document_pair, Image.new("RGB", (40, 40)))
    assert page.doctags == f"<doctag>{everything}</doctag>"


def test_an_end_token_ends_a_page_and_is_no_part_of_it(document_pair, monkeypatch):
    force_tokens(monkeypatch, lambda key: tokens(" <text>No end tag<|end_of_text|>"))
    (page,) = pages_read(document_pair, Image.new("RGB", (40, 40)))
    assert (page.doctags, page.finish_reason) == ("<text>No end tag", "stop")  # SmolDocling begins with a space


def test_a_cut_page_keeps_its_text_and_says_so(document_pair, monkeypatch):
    force_tokens(monkeypatch, lambda key: tokens(f"<doctag><otsl><fcel>{'12 ' * 500}"))
    (page,) = pages_read(document_pair, Image.new("RGB", (40, 40)), max_tokens=20)
    assert page.finish_reason == "length" and page.is_partial
    assert page.completion_tokens == 20
    assert page.doctags.startswith("<doctag><otsl><fcel>12 12 ")


def test_the_context_bounds_a_page(document_pair, monkeypatch):
    processor = document_pair[1]
    force_tokens(monkeypatch, lambda key: tokens("12" * 200))
    monkeypatch.setattr(processor, "config", replace(processor.config, context_length=250))
    (page,) = pages_read(document_pair, Image.new("RGB", (40, 40)))
    assert page.finish_reason == "length"
    assert page.prompt_tokens + page.completion_tokens == 250


def test_a_loop_is_stopped_and_a_table_of_equal_rows_is_not(document_pair, monkeypatch):
    loop = "<text><loc_1><loc_2><loc_3><loc_4>Again</text>\n" * 99
    table = f"<doctag><otsl><loc_1><loc_2><loc_3><loc_4>{'<fcel>0<nl>' * 20}</otsl></doctag>"
    force_tokens(monkeypatch, lambda key: tokens([f"<doctag>{loop}", table, PAGE.format(3)][key]))
    found = pages_read(document_pair, pdf_bytes([SMALL] * 3))
    assert [page.finish_reason for page in found] == ["loop", "stop", "stop"]
    assert found[0].is_partial and found[0].doctags.count("Again") == 3
    assert found[1].doctags == table


def test_what_cannot_be_read_loses_nothing_else(document_pair, monkeypatch, tmp_path):
    force_tokens(monkeypatch, lambda key: tokens(PAGE.format(key)))
    sources = [tmp_path / "missing.pdf", pdf_bytes([SMALL], ENCRYPTED), pdf_bytes([SMALL, SMALL])]
    found = pages_read(document_pair, sources)
    assert [(page.number, page.error is None) for page in found] == [(0, False), (0, False), (1, True), (2, True)]
    assert "no such file" in str(found[0].error) and "encrypted" in str(found[1].error)
    assert found[3].doctags == PAGE.format(3)


def test_folders_are_read_too(document_pair, monkeypatch, tmp_path):
    force_tokens(monkeypatch, lambda key: tokens(PAGE.format(key)))
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").touch()
    with pytest.warns(UserWarning, match="skipped 1 file: 1 TXT"):
        (page,) = pages_read(document_pair, tmp_path)
    assert page.source == str(tmp_path / "a.png")


def test_a_batch_gives_what_each_page_gives_alone(document_pair):
    """Pages of different sizes, so of different numbers of tiles: without forced tokens, in float32."""
    sizes, colors = [(90, 60), (30, 90), (60, 60), (500, 120)], ["red", "blue", "white", "gray"]
    images = [Image.new("RGB", size, color) for size, color in zip(sizes, colors, strict=True)]
    together = pages_read(document_pair, images, max_tokens=12)
    alone = [pages_read(document_pair, image, max_tokens=12, batch_size=1)[0] for image in images]
    assert [page.doctags for page in together] == [page.doctags for page in alone]
    assert len({page.doctags for page in together}) == 4
    streamed = stream_generate(
        *document_pair,
        "Convert this page to docling.",
        images=[images[0]],
        max_tokens=12,
        skip_special_tokens=False,
    )
    assert "".join(step.text for step in streamed).startswith(together[0].doctags)


def test_pieces_of_a_stream_join_to_the_whole(document_pair, monkeypatch):
    text = PAGE.format("x")
    force_tokens(monkeypatch, lambda key: tokens(text + "<|end_of_text|>"))
    pieces = []
    with Rows(*document_pair) as rows:
        rows.add(BatchRequest("Hello"), skip_special_tokens=False)
        while rows:
            pieces += [event.text for event in rows.step()]
    assert "".join(pieces) == f"{text}<|end_of_text|>"
    assert sum(map(bool, pieces)) > 10


def test_closing_early_leaves_no_threads(document_pair, monkeypatch):
    force_tokens(monkeypatch, lambda key: tokens(PAGE.format(key)))
    before = threading.active_count()
    reading = read_document(*document_pair, pdf_bytes([SMALL] * 9), scale=0.5)
    next(reading)
    reading.close()
    assert threading.active_count() == before
    cancel = Event()
    cancel.set()
    assert pages_read(document_pair, pdf_bytes([SMALL] * 9), cancel=cancel) == []


def test_options_with_no_place_are_refused(document_pair):
    image = Image.new("RGB", (40, 40))
    for keywords, problem in (
        ({"stop": ["x"]}, "stop is"),
        ({"skip_special_tokens": True}, "layout is made of special tokens"),
        ({"fps": 2}, "there is no video"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"regex": "a"}, "regex is"),
    ):
        with pytest.raises(ValueError, match=problem):
            read_document(*document_pair, image, **keywords)
    assert MAX_PAGE_TOKENS == 8192
