"""What a document model can be asked about a page, with the prompts that it was trained on.

The prompts are those of the model card of ibm-granite/granite-docling-258M; SmolDocling knows the first ones too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from ..options import did_you_mean, is_whole, quoted

PROMPTS = {
    "page": "Convert this page to docling.",
    "table": "Convert table to OTSL.",
    "chart": "Convert chart to table.",
    "formula": "Convert formula to LaTeX.",
    "code": "Convert code to text.",
    "ocr": "OCR the text in a specific location: ",
    "identify": "Identify element at: ",
    "headers": "Find all 'text' elements on the page, retrieve all section headers.",
    "footers": "Detect footer elements on the page.",
}
GRID = 500  # locations are 0 to 500 on both axes, whatever a page's size
_NAMES_REGION = ("ocr", "identify")  # the prompt says where
_SHOWS_REGION = ("table", "chart", "formula", "code")  # the image is cut to the region
Region = tuple[int, int, int, int]


@dataclass(frozen=True)
class PageTask:
    """What is asked about every page.

    Attributes:
        name: one of `PROMPTS`.
        region: left, top, right, bottom, each from 0 to 500 of the page's width or height; None for the whole page.
            "ocr" and "identify" need one. Of "table", "chart", "formula" and "code", and with `own_prompt`, the model
            sees this part alone.
        own_prompt: what to ask in place of a task, which is "page" then.

    Raises:
        ValueError: no such task; a region out of range, reversed, missing, or one that the task has no use for; an own
            prompt beside another task, an empty one, or one with markers of other media than the page.
    """

    name: str = "page"
    region: Region | None = None
    own_prompt: str | None = None

    def __post_init__(self) -> None:
        if self.name not in PROMPTS:
            advice = did_you_mean(str(self.name), list(PROMPTS)) or f"expected one of {', '.join(PROMPTS)}"
            raise ValueError(f"there is no task {quoted(self.name)}; {advice}")
        self._check_own_prompt()
        if self.region is None:
            if self.name in _NAMES_REGION:
                raise ValueError(f"the task {self.name!r} needs a region: left, top, right, bottom, each 0 to {GRID}")
            return
        object.__setattr__(self, "region", check_region(self.region))
        if self.own_prompt is None and self.name not in (*_NAMES_REGION, *_SHOWS_REGION):
            raise ValueError(
                f"the task {self.name!r} is about the whole page, so a region has no effect; leave it out, or choose "
                f"one of {', '.join((*_NAMES_REGION, *_SHOWS_REGION))}"
            )

    def _check_own_prompt(self) -> None:
        prompt = self.own_prompt
        if prompt is None:
            return
        if not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(f"prompt is {quoted(prompt)}, expected what to ask about each page")
        if self.name != "page":
            raise ValueError(f"prompt and the task {self.name!r} are both given; leave one of them out")
        if prompt.count("<image>") > 1 or "<video>" in prompt:
            raise ValueError(f"prompt is {quoted(prompt)}: each page is one image, so it has room for one <image>")

    @property
    def prompt(self) -> str:
        """What the model is asked."""
        if self.own_prompt is not None:
            return self.own_prompt
        if self.name not in _NAMES_REGION or self.region is None:
            return PROMPTS[self.name]
        return PROMPTS[self.name] + "".join(f"<loc_{place}>" for place in self.region)

    def shown(self, page: Image.Image) -> Image.Image:
        """The part of a page that the model sees, which locations in its answer refer to."""
        if self.region is None or (self.own_prompt is None and self.name not in _SHOWS_REGION):
            return page
        left, top, right, bottom = self.region
        width, height = page.size
        box = [left * width / GRID, top * height / GRID, right * width / GRID, bottom * height / GRID]
        x0, y0 = min(int(box[0]), width - 1), min(int(box[1]), height - 1)
        return page.crop((x0, y0, max(x0 + 1, round(box[2])), max(y0 + 1, round(box[3]))))


def check_region(region: Sequence[int]) -> Region:
    """The region as a tuple. Raises ValueError if it is none."""
    expected = f"expected left, top, right, bottom as whole numbers from 0 to {GRID}"
    if isinstance(region, str) or not isinstance(region, Sequence) or len(region) != 4:
        raise ValueError(f"region is {quoted(region)}, {expected}")
    if not all(is_whole(place, 0, GRID) for place in region):
        raise ValueError(f"region is {quoted(region)}, {expected}")
    left, top, right, bottom = (int(place) for place in region)
    if left >= right or top >= bottom:
        raise ValueError(f"region is {quoted(region)}: left must be less than right, and top less than bottom")
    return left, top, right, bottom


def parse_region(text: str) -> Region:
    """`L,T,R,B` as on the command line. Raises ValueError."""
    try:
        return check_region([int(place) for place in text.split(",")])
    except ValueError as error:
        if str(error).startswith("region"):
            raise
        raise ValueError(f"region is {quoted(text)}, expected four whole numbers, such as 0,0,500,250") from None
