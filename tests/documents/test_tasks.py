"""What is asked about a page, and regions that are none."""

import pytest
from PIL import Image

from mlx_smolvlm.documents.tasks import PROMPTS, PageTask, parse_region


def test_prompts_are_those_of_the_model_card():
    assert PageTask().prompt == "Convert this page to docling."
    assert PageTask("table").prompt == "Convert table to OTSL."
    region = (155, 233, 206, 237)
    assert PageTask("ocr", region).prompt == (
        "OCR the text in a specific location: <loc_155><loc_233><loc_206><loc_237>"
    )
    assert PageTask("identify", region).prompt == "Identify element at: <loc_155><loc_233><loc_206><loc_237>"


def test_a_region_is_what_the_model_sees_of_a_formula():
    page = Image.new("RGB", (1000, 2000))
    page.putpixel((100, 400), (255, 0, 0))
    shown = PageTask("formula", (50, 100, 250, 300)).shown(page)
    assert shown.size == (400, 800)
    assert shown.getpixel((0, 0)) == (255, 0, 0)
    assert PageTask("ocr", (50, 100, 250, 300)).shown(page) is page
    assert PageTask("code", (499, 499, 500, 500)).shown(Image.new("RGB", (3, 3))).size == (1, 1)


@pytest.mark.parametrize(
    ("region", "problem"),
    [
        ((0, 0, 501, 5), "whole numbers from 0 to 500"),
        ((-1, 0, 5, 5), "whole numbers from 0 to 500"),
        ((0, 0, 5), "left, top, right, bottom"),
        ((0.5, 0, 5, 5), "whole numbers from 0 to 500"),
        ((9, 0, 5, 5), "left must be less than right"),
        ((0, 5, 5, 5), "top less than bottom"),
        ("0,0,5,5", "left, top, right, bottom"),
    ],
)
def test_regions_are_checked(region, problem):
    with pytest.raises(ValueError, match=problem):
        PageTask("ocr", region)


def test_tasks_and_regions_must_go_together():
    with pytest.raises(ValueError, match="needs a region"):
        PageTask("ocr")
    with pytest.raises(ValueError, match="about the whole page, so a region has no effect"):
        PageTask("page", (0, 0, 5, 5))
    with pytest.raises(ValueError, match="there is no task 'pages'; did you mean"):
        PageTask("pages")
    assert parse_region("1,2,3,4") == (1, 2, 3, 4)
    for text in ("1,2,3", "a,b,c,d", "1,2,3,501"):
        with pytest.raises(ValueError, match="region is"):
            parse_region(text)
    assert all(prompt.strip() for prompt in PROMPTS.values())
