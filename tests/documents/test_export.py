"""A document as Markdown, HTML, JSON and DocTags."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image
from support.golden_cases import GOLDENS

from mlx_smolvlm.documents.doctags import parse_doctags
from mlx_smolvlm.documents.document_tree import DocumentElement, DocumentPage, DocumentTree
from mlx_smolvlm.documents.export import export

CASES = json.loads((GOLDENS / "doctags.json").read_text(encoding="utf-8"))["cases"]


def words(text: str) -> list[str]:
    """Words without what marks them up."""
    return re.findall(r"\w+", text)


def closed(tree: DocumentTree) -> DocumentTree:
    """The tree as if every end tag had been there."""

    def close(element: DocumentElement) -> DocumentElement:
        inner = {name: tuple(map(close, getattr(element, name))) for name in ("captions", "footnotes", "children")}
        return replace(element, is_closed=True, **inner)

    return DocumentTree(tuple(DocumentPage(tuple(map(close, page.elements))) for page in tree.pages))


@pytest.mark.parametrize("name", CASES)
def test_markdown_equals_docling_cores_where_that_loses_nothing(name):
    case = CASES[name]
    markdown = export(parse_doctags(case["doctags"]), "md")
    expected = case["markdown"]
    for tag in case["tags_shown_as_text"]:  # an empty cell before another one
        expected = expected.replace(tag, " " * len(tag))
    if case["loses_text"]:
        assert set(case["words_lost"]) <= set(words(markdown.replace("&lt;", " ").replace("&gt;", " ")))
    else:
        assert markdown == expected


@pytest.mark.parametrize("name", CASES)
def test_doctags_give_the_tree_again(name):
    tree = parse_doctags(CASES[name]["doctags"])
    assert parse_doctags(export(tree, "doctags")) == closed(tree)


@pytest.mark.parametrize("name", CASES)
def test_html_and_json_hold_the_words_of_markdown(name):
    tree = parse_doctags(CASES[name]["doctags"])
    markdown = export(tree, "md").replace("<!-- image -->", "").replace("[x]", "")
    wanted = {word for word in words(re.sub(r"&\w+;|&#124;|^\d+\.", " ", markdown, flags=re.MULTILINE)) if word != "_"}
    assert wanted <= set(words(shown(export(tree, "html"))))
    assert wanted - {"Bar", "chart"} <= set(words(" ".join(texts(json.loads(export(tree, "json"))))))


def shown(page: str) -> str:
    """The text of a page."""
    pieces = []

    class Reader(HTMLParser):
        def handle_data(self, data):
            pieces.append(data)

    Reader().feed(page.partition("<body>")[2])
    return " ".join(pieces)


def texts(record) -> list[str]:
    """Every text within JSON."""
    if isinstance(record, dict):
        return [text for value in record.values() for text in texts(value)]
    return [text for value in record for text in texts(value)] if isinstance(record, list) else [str(record)]


def test_html_has_no_markup_of_the_document_and_no_links():
    hostile = '"><script>alert(1)</script><img src=http://x onerror=a>&\0'
    doctags = "".join(
        f"<{tag}>{hostile}</{tag}>"
        for tag in ("title", "text", "code", "formula", "caption", "footnote", "list_item", "smiles", "key_1")
    )
    doctags += f"<code><_{hostile.replace('<', '').replace('>', '')}_>x</code><otsl><ched>{hostile}</otsl>"
    page = export(parse_doctags(doctags), "html")
    assert set(re.findall(r"<(/?\w+)", page.partition("<body>")[2])) <= {
        *("section", "/section", "h1", "/h1", "p", "/p", "pre", "/pre", "code", "/code", "ul", "/ul", "li", "/li"),
        *("table", "/table", "tr", "/tr", "th", "/th", "/body", "/html"),
    }
    assert "\0" not in page


def test_html_shows_images_cropped_from_the_page():
    page_image = Image.new("RGB", (100, 50), "white")
    page_image.paste("red", (20, 10, 60, 30))
    tree = parse_doctags("<picture><loc_100><loc_100><loc_300><loc_300></picture><picture></picture><page_break>")
    page = export(tree, "html", [page_image, None])
    (content,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    cropped = Image.open(io.BytesIO(base64.b64decode(content)))
    assert cropped.size == (40, 20)
    assert cropped.getcolors() == [(800, (255, 0, 0))]
    with pytest.raises(ValueError, match="1 page images for a document of 2 pages"):
        export(tree, "html", [page_image])


def test_html_keeps_lists_within_lists_and_spans():
    page = export(parse_doctags(CASES["list_nested"]["doctags"] + CASES["table_block_span"]["doctags"]), "html")
    assert "<ul>" in page and "<ol>" in page
    assert 'rowspan="2" colspan="2"' in page


def test_json_names_things_as_docling_does():
    record = json.loads(
        export(parse_doctags("<page_header>x</page_header><otsl><ched>A<lcel><nl><rhed>b<fcel>c<nl></otsl>"), "json")
    )
    assert record["schema_name"] == "mlx_smolvlm.Document" and record["pages"][0]["page_no"] == 1
    header, table = record["pages"][0]["elements"]
    assert header == {"label": "page_header", "content_layer": "furniture", "text": "x"}
    assert (table["data"]["num_rows"], table["data"]["num_cols"]) == (2, 2)
    assert table["data"]["table_cells"][0] == {
        "text": "A", "start_row_offset_idx": 0, "end_row_offset_idx": 1, "start_col_offset_idx": 0,
        "end_col_offset_idx": 2, "row_span": 1, "col_span": 2, "column_header": True, "row_header": False,
        "row_section": False,
    }  # fmt: skip


@pytest.mark.parametrize("to", ["md", "html", "json", "doctags"])
def test_every_export_is_valid_utf_8(to):
    text = export(parse_doctags("<text>a\udcff\0 b \ud83d</text>"), to)
    assert text.encode("utf-8")
    if to == "json":
        assert json.loads(text)["pages"][0]["elements"][0]["text"] == "a\udcff\0 b \ud83d"


def test_another_format_is_refused():
    with pytest.raises(ValueError, match="no format 'pdf'; expected one of md, html, json, doctags"):
        export(DocumentTree(), "pdf")


def test_a_table_that_padding_would_make_huge_is_written_without():
    ragged = "<otsl>" + "<fcel>a" * 1200 + "<nl>" + "<fcel>b<nl>" * 1200 + "</otsl>"
    long = "<otsl><fcel>" + "a" * 50_000 + "<nl>" + "<fcel>b<nl>" * 1200 + "</otsl>"
    spanning = "<otsl><fcel>" + "a" * 20_000 + "<lcel>" * 1200 + "<nl></otsl>"
    for doctags in (ragged, long, spanning):
        tree = parse_doctags(doctags)
        assert all(len(export(tree, to)) < 50 * len(doctags) for to in ("md", "html", "json", "doctags"))
        assert export(tree, "md").count("b") == doctags.count("b")


MADE = json.loads((GOLDENS / "made_doctags.json").read_text(encoding="utf-8"))["cases"]


def test_markdown_of_made_documents_equals_docling_cores():
    found = [export(parse_doctags(case["doctags"]), "md") == case["markdown"] for case in MADE]
    assert found == [True] * 60
