"""Files -> pages: sizes, pixels, order, and what is refused by name."""

import math
import sys

import numpy as np
import pypdfium2
import pytest
from PIL import Image
from support.made_pdfs import ENCRYPTED, MadePage, pdf_bytes, write_pdf

from mlx_smolvlm.documents.page_file import MAX_RENDER_PIXELS
from mlx_smolvlm.documents.page_files import open_pages
from mlx_smolvlm.documents.page_images import LeftOutFiles, find_documents, page_images


def docling_image(path, index: int, scale: float) -> Image.Image:
    """What docling's pypdfium2 backend makes of a page, in its two steps."""
    document = pypdfium2.PdfDocument(path)
    page = document[index]
    bitmap = page.render(scale=scale * 1.5, rotation=0, crop=(0, 0, 0, 0))
    image = bitmap.to_pil().copy()
    size = (round(page.get_width() * scale), round(page.get_height() * scale))
    bitmap.close()
    page.close()
    document.close()
    return image.resize(size=size)


PAGES = [
    MadePage(["upright"]),
    MadePage(["rotated"], rotation=90),
    MadePage(["cropped"], crop=(100, 300, 411, 700)),
    MadePage(["both"], rotation=270, crop=(100.5, 300, 400, 699)),
    MadePage(["A4"], width=595.276, height=841.89),
    MadePage(width=2, height=2),
    MadePage(["wide"], width=1500, height=60),
]
SIZES = [(306, 396), (396, 306), (156, 200), (200, 150), (298, 421), (1, 1), (750, 30)]  # at 36 dpi


def test_pdf_pages_are_doclings_pixels(tmp_path):
    path = write_pdf(tmp_path / "made.pdf", PAGES)
    with open_pages(path) as pages:
        assert len(pages) == len(PAGES)
        for index in range(len(PAGES)):
            image = pages.image(index + 1, scale=0.5)
            assert (image.mode, image.size) == ("RGB", SIZES[index])
            assert np.array_equal(np.asarray(image), np.asarray(docling_image(path, index, 0.5)))
        assert np.array_equal(np.asarray(pages.image(3)), np.asarray(docling_image(path, 2, 2.0)))
        assert pages.size_points(2) == (792, 612)
        with pytest.raises(ValueError, match=r"made\.pdf: there is no page 8, it has 7 pages"):
            pages.image(8)


def test_a_rotated_page_is_upright(tmp_path):
    with open_pages(write_pdf(tmp_path / "made.pdf", PAGES[:2])) as pages:
        blue = [np.argwhere((np.asarray(pages.image(number)) == (26, 77, 230)).all(-1)).mean(0) for number in (1, 2)]
    assert blue[0] == pytest.approx([0.15 * 1584, 0.15 * 1224], abs=10)  # row, column
    assert blue[1] == pytest.approx([0.15 * 1224, 0.85 * 1584], abs=10)  # clockwise: the top left went to the right


def test_huge_pages_are_rendered_smaller_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr("mlx_smolvlm.documents.pdf_file.MAX_RENDER_PIXELS", 1_000_000)
    path = write_pdf(tmp_path / "huge.pdf", [MadePage(width=14400, height=7200)])
    with open_pages(path) as pages, pytest.warns(UserWarning, match=r"huge\.pdf, page 1: rendered at .* instead of"):
        image = pages.image(1)
    assert image.width == pytest.approx(2 * image.height, abs=10)
    assert 0.9e6 < image.width * image.height * 1.5**2 <= 1e6


def test_a0_is_rendered_as_docling_does():
    assert math.ceil(2384 * 3) * math.ceil(3370 * 3) <= MAX_RENDER_PIXELS


def test_a_tiff_has_pages_and_an_image_is_one(tmp_path):
    frames = [Image.new("RGB", (30 + index, 20), (index, 0, 0)) for index in range(3)]
    frames[0].save(tmp_path / "scan.tif", save_all=True, append_images=frames[1:])
    frames[2].save(tmp_path / "one.png")
    found = list(
        page_images([tmp_path / "scan.tif", tmp_path / "one.png", frames[0], (tmp_path / "one.png").read_bytes()])
    )
    assert [(page.number, page.image.size) for page in found] == [
        (1, (30, 20)),
        (2, (31, 20)),
        (3, (32, 20)),
        (1, (32, 20)),
        (1, (30, 20)),
        (1, (32, 20)),
    ]
    assert found[2].source == str(tmp_path / "scan.tif")


def test_content_tells_what_a_file_is(tmp_path):
    write_pdf(tmp_path / "really_a_pdf.png", [PAGES[2], PAGES[5]])
    Image.new("RGB", (5, 4)).save(tmp_path / "really_a_png.pdf", format="PNG")
    found = [(page.number, page.image.size) for page in page_images(find_documents([str(tmp_path)]))]
    assert found == [(1, (622, 800)), (2, (4, 4)), (1, (5, 4))]


def test_digests_are_those_of_the_content(tmp_path):
    first, same = write_pdf(tmp_path / "1.pdf", PAGES[:1]), write_pdf(tmp_path / "2.pdf", PAGES[:1])
    other = write_pdf(tmp_path / "3.pdf", PAGES[:2])
    digests = [open_pages(path).digest for path in (first, same, other)]
    assert digests[0] == digests[1] == open_pages(first.read_bytes()).digest != digests[2]


def test_bad_documents_are_named_and_the_others_follow(tmp_path):
    good = pdf_bytes([PAGES[2], PAGES[5]])
    files = {
        "damaged.pdf": (b"%PDF-1.7\n" + b"x" * 300, "not a PDF, or a damaged one; get a whole copy"),
        "empty.pdf": (b"", "empty; expected a PDF or an image"),
        "encrypted.pdf": (
            pdf_bytes(PAGES[:1], ENCRYPTED),
            "an encrypted PDF; give its password (--password-file",
        ),
        "none.pdf": (pdf_bytes([]), "a PDF without pages"),
        "text.pdf": (b"hello", "not a PDF, or a damaged one; get a whole copy"),
        "text.png": (b"hello", "text, not an image"),
        "wide.pdf": (pdf_bytes([MadePage(width=1e9, height=1)]), "1e+09 x 1 points cannot be rendered"),
    }
    for name, (content, _) in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "good.pdf").write_bytes(good)
    errors: list[str] = []
    found = list(
        page_images(
            [tmp_path / name for name in [*files, "missing.pdf", "good.pdf"]],
            on_error=lambda name, number, error: errors.append(str(error)),
        )
    )
    assert [page.number for page in found] == [1, 2]
    for error, (name, (_, reason)) in zip(errors, files.items(), strict=False):
        place = f"{tmp_path / name}{', page 1' * (name == 'wide.pdf')}"
        assert error.startswith(f"{place}: {reason}"), error
    assert errors[-1] == f"{tmp_path / 'missing.pdf'}: no such file; check the path of the document"
    with pytest.raises(IsADirectoryError, match="a folder; pass a PDF or an image"):
        open_pages(tmp_path)


def test_a_cut_pdf_raises_nothing_but_value_errors(tmp_path):
    """PDFium mends what it can; what it cannot is one clear line."""
    good = pdf_bytes(PAGES[:3])
    errors: list[Exception] = []
    for length in range(20, len(good), 97):
        before = len(errors)
        pages = list(page_images([good[:length]], scale=0.2, on_error=lambda *error: errors.append(error[2])))
        assert pages or len(errors) > before
    assert errors
    assert all(type(error) is ValueError for error in errors)


def test_folders_are_searched_and_what_is_left_out_is_told(tmp_path):
    (tmp_path / "below").mkdir()
    write_pdf(tmp_path / "below" / "b.pdf", PAGES[:1])
    write_pdf(tmp_path / ".hidden.pdf", PAGES[:1])
    Image.new("RGB", (5, 4)).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("hello")
    left_out = LeftOutFiles()
    found = find_documents([str(tmp_path), str(tmp_path / "a.png")], left_out)
    assert found == [str(tmp_path / "a.png"), str(tmp_path / "below" / "b.pdf")]
    assert left_out.notes() == ["skipped 1 file: 1 TXT"]
    with pytest.raises(FileNotFoundError, match="no folder or file"):
        find_documents([str(tmp_path / "nothing")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no PDFs and no images in"):
        find_documents([str(tmp_path / "empty")])


def test_without_pypdfium2_there_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'mlx-smolvlm\[documents\]'"):
        open_pages(pdf_bytes(PAGES[:1]))
