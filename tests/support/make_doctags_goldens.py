"""Make `goldens/made_doctags.json`: `PYTHONPATH=tests python tests/support/make_doctags_goldens.py`, with docling-core.

docling-core's Markdown of DocTags that `made_doctags` makes.
"""

import json
from importlib.metadata import version
from pathlib import Path

from docling_core.types.doc import DoclingDocument, DocTagsDocument

from support.made_doctags import made_doctags

COUNT = 60
GOLDENS = Path(__file__).parents[1] / "goldens"


def docling_markdown(doctags: str) -> str:
    """What docling-core makes of it by itself."""
    if "<page_break>" in doctags:
        pages = DocTagsDocument.from_multipage_doctags_and_images(doctags, None)
    else:
        pages = DocTagsDocument.from_doctags_and_image_pairs([doctags], None)
    return DoclingDocument.load_from_doctags(pages).export_to_markdown()


def main() -> None:
    """Write the file."""
    cases = [{"doctags": doctags, "markdown": docling_markdown(doctags)} for doctags in map(made_doctags, range(COUNT))]
    record = {"docling-core": version("docling-core"), "cases": cases}
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    (GOLDENS / "made_doctags.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
