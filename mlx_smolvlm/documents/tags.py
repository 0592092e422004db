"""The tags of DocTags: those of SmolDocling, of granite-docling and of docling-core. Nothing else is a tag.

DocTags escapes nothing, so `<b>` or `#include <vector>` is text.
"""

import re

from .otsl import CELL_TAGS

# Tag -> kind of the element. They hold text.
TEXT_TAGS = {
    **{f"section_header_level_{level}": "section_header" for level in range(7)},
    **{name: name for name in (
        "title", "text", "paragraph", "reference", "handwritten_text", "caption", "footnote", "formula", "code",
        "page_header", "page_footer", "checkbox_selected", "checkbox_unselected", "smiles", "list_item",
    )},
    "references": "reference",
}  # fmt: skip
# They hold other elements.
CONTAINER_TAGS = {
    **{name: name for name in (
        "unordered_list", "ordered_list", "inline", "picture", "chart", "document_index", "key_value_region",
    )},
    "otsl": "table",
}  # fmt: skip
WRAPPER_TAGS = ("doctag", "form", "group")  # what stands within them stands for itself
END_TOKENS = ("end_of_utterance", "|end_of_text|")  # of the models' answers
# What an image shows. Many are ordinary words: tags only directly within an image or chart.
PICTURE_CLASSES = (
    "bar_chart", "box_plot", "flow_chart", "line_chart", "pie_chart", "scatter_plot", "table", "full_page_image",
    "page_thumbnail", "photograph", "chemistry_structure", "bar_code", "icon", "logo", "qr_code", "signature", "stamp",
    "engineering_drawing", "screenshot_from_computer", "screenshot_from_manual", "geographical_map",
    "topographical_map", "calendar", "crossword_puzzle", "music", "other", "cad_drawing", "decoration",
    "electrical_diagram", "map", "heatmap", "illustration", "infographic", "chemistry_markush_structure",
    "chemistry_molecular_structure", "natural_image", "person", "picture_group", "remote_sensing", "scatter_chart",
    "screenshot", "stacked_bar_chart", "stratigraphic_chart", "ui_element", "other_chart", "line", "dot_line",
    "vbar_categorical", "hbar_categorical",
)  # fmt: skip
# Names of SmolDocling that docling-core translates.
RENAMED_CLASSES = {
    "line": "line_chart",
    "dot_line": "line_chart",
    "vbar_categorical": "bar_chart",
    "hbar_categorical": "bar_chart",
}
MAX_TAG_CHARS = 40

_ENDED = "|".join([*TEXT_TAGS, *CONTAINER_TAGS, *WRAPPER_TAGS])
_SINGLE = "|".join(map(re.escape, [*CELL_TAGS, "nl", "page_break", *END_TOKENS, *PICTURE_CLASSES]))
# `split` yields text and tags by turns, a tag without its brackets
TAG = re.compile(rf"<(/?(?:{_ENDED}|(?:key|value|rec)_\d{{1,9}})|{_SINGLE}|loc_-?\d{{1,9}}|link_\d{{1,9}})>")
_BEGINNING = re.compile(r"</?[\w|-]*", re.ASCII)


def find_unfinished(text: str) -> int:
    """Where a tag begins of which the end may still come, or the length of the text."""
    start = text.rfind("<", max(0, len(text) - MAX_TAG_CHARS))
    return start if start >= 0 and _BEGINNING.fullmatch(text, start) else len(text)
