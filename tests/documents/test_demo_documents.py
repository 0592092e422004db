"""The documents of `examples/demo_documents.py`: five PDFs with 30 pages, and what is on them as DocTags."""

import sys
from pathlib import Path

import pypdfium2
import pytest
from PIL import Image, ImageDraw

from mlx_smolvlm.documents.doctags import parse_doctags
from mlx_smolvlm.documents.document_tree import DocumentElement
from mlx_smolvlm.documents.export import export

sys.path.append(str(Path(__file__).parents[2] / "examples"))

import demo_documents


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """The PDFs."""
    return demo_documents.make_documents(tmp_path_factory.mktemp("documents"))


def pages_of(path: Path) -> list[Image.Image]:
    """Every page at 36 dpi, grey."""
    with pypdfium2.PdfDocument(path) as document:
        return [page.render(scale=0.5, grayscale=True).to_pil() for page in document]


def boxes(element: DocumentElement) -> list[tuple[int, int, int, int]]:
    """Of the element and all within it."""
    inner = [box for one in (*element.captions, *element.children) for box in boxes(one)]
    return inner if element.box is None else [element.box, *inner]


def test_there_are_five_documents_with_thirty_pages(paths):
    trees = [parse_doctags(path.with_suffix(".doctags").read_text(encoding="utf-8")) for path in paths]
    assert [len(pages_of(path)) for path in paths] == [len(tree.pages) for tree in trees] == [8, 6, 6, 5, 5]
    kinds = {element.kind for tree in trees for page in tree.pages for element in page.elements}
    assert kinds == {
        *("title", "section_header", "text", "unordered_list", "formula", "code", "table", "chart"),
        *("page_header", "page_footer"),
    }


def test_all_that_is_drawn_lies_in_the_boxes(paths):
    for path in paths:
        tree = parse_doctags(path.with_suffix(".doctags").read_text(encoding="utf-8"))
        for image, page in zip(pages_of(path), tree.pages, strict=True):
            width, height = image.size
            for box in [box for element in page.elements for box in boxes(element)]:
                left, top, right, bottom = (
                    value * size / 500 for value, size in zip(box, (width, height, width, height), strict=True)
                )
                assert image.crop((int(left), int(top), int(right) + 1, int(bottom) + 1)).getextrema()[0] < 200
                ImageDraw.Draw(image).rectangle((left - 2, top - 2, right + 2, bottom + 2), fill=255)
            assert image.getextrema() == (255, 255)


def test_their_text_is_in_the_files(paths):
    with pypdfium2.PdfDocument(paths[0]) as document:
        text = " ".join(" ".join(page.get_textpage().get_text_range() for page in document).split())
    markdown = export(parse_doctags(paths[0].with_suffix(".doctags").read_text(encoding="utf-8")), "md")
    paragraph = next(line for line in markdown.split("\n") if len(line) > 200)
    assert paragraph in text


def test_the_same_seed_makes_the_same_files(paths, tmp_path):
    again = demo_documents.make_documents(tmp_path)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]
    assert demo_documents.make_documents(tmp_path, 1)[0].read_bytes() != paths[0].read_bytes()
