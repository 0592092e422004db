"""DocTags to docling-core's document, beside docling-core's own loader."""

import json
import re
import sys

import pytest
from PIL import Image
from support.golden_cases import GOLDENS
from support.made_doctags import made_doctags

from mlx_smolvlm.documents.docling_bridge import to_docling_document
from mlx_smolvlm.documents.doctags import parse_doctags
from mlx_smolvlm.documents.export import export

CASES = json.loads((GOLDENS / "doctags.json").read_text(encoding="utf-8"))["cases"]


def words(markdown: str) -> list[str]:
    """Words without what marks them up."""
    return re.findall(r"\w+", markdown)


@pytest.fixture
def docling_core():
    """docling-core's documents."""
    return pytest.importorskip("docling_core.types.doc", reason="docling-core is not installed")


@pytest.mark.parametrize("name", CASES)
def test_markdown_equals_ours(docling_core, name):
    tree = parse_doctags(CASES[name]["doctags"])
    found, expected = to_docling_document(tree).export_to_markdown(), export(tree, "md")
    if name == "unclosed_table":  # in cells, docling-core escapes nothing
        found, expected = words(found), words(expected.replace("&lt;", "<"))
    assert found == expected


@pytest.mark.parametrize("seed", range(60, 120))
def test_made_documents_equal_docling_cores(docling_core, seed):
    from support.make_doctags_goldens import docling_markdown

    doctags = made_doctags(seed)
    tree, expected = parse_doctags(doctags), docling_markdown(doctags)
    assert export(tree, "md") == expected
    assert to_docling_document(tree).export_to_markdown() == expected


def test_places_are_pixels_of_the_page_image_and_pictures_are_cropped(docling_core):
    tree = parse_doctags("<picture><loc_0><loc_0><loc_250><loc_250><bar_chart></picture><text>a\udcff</text>")
    document = to_docling_document(tree, "page", [Image.new("RGB", (200, 100), "red")])
    (picture,) = document.pictures
    assert picture.prov[0].bbox.as_tuple() == (0, 0, 100, 50)
    assert (picture.image.size.width, picture.image.size.height) == (100, 50)
    assert (document.name, document.texts[0].text) == ("page", "a\ufffd")


def test_keys_and_values_are_linked(docling_core):
    doctags = "<key_value_region><key_1>Name<link_2></key_1><value_2>Ann</value_2></key_value_region>"
    (item,) = to_docling_document(parse_doctags(doctags)).key_value_items
    assert [(cell.cell_id, cell.text) for cell in item.graph.cells] == [(1, "Name"), (2, "Ann")]
    assert [(link.source_cell_id, link.target_cell_id) for link in item.graph.links] == [(1, 2)]


def test_another_number_of_images_is_refused(docling_core):
    with pytest.raises(ValueError, match="2 page images for a document of 1 pages"):
        to_docling_document(parse_doctags(""), page_images=[None, None])


def test_without_docling_core_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "docling_core.types.doc", None)
    monkeypatch.setitem(sys.modules, "docling_core", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'mlx-smolvlm\[docling\]'"):
        to_docling_document(parse_doctags(""))
