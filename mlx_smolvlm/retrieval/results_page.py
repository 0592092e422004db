"""The results of a search as one HTML file: each page with where the words of the question matched. No scripts."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..documents.page_files import open_pages
from ..files import refuse_foreign, whole_file
from .indexing import page_digest
from .page_index import SearchResult
from .retriever import Retriever

_GENERATOR = '<meta name="generator" content="mlx-smolvlm search --html">'
_MAX_SIDE = 1000  # pixels of a page as it is shown
_COLOR = (255, 120, 0)
_STRONGEST = 200  # of 255: what is beneath still shows
_ALL = "all words"
_STYLE = """
body { font-family: sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; }
section { border-top: 1px solid #ccc; padding: 1em 0; }
h2 { font-size: 1.1em; overflow-wrap: anywhere; }
input { position: absolute; opacity: 0; }
label { display: inline-block; padding: .2em .6em; margin: 0 .3em .3em 0; border: 1px solid #bbb; border-radius: 1em; }
input:checked + label { background: #ffe0c2; border-color: #e67300; }
input:focus-visible + label { outline: 2px solid #e67300; }
.page { position: relative; margin-top: .6em; border: 1px solid #ccc; line-height: 0; }
.page img { width: 100%; }
.page .map { position: absolute; left: 0; top: 0; height: 100%; opacity: 0; }
"""


@dataclass(frozen=True)
class WordMap:
    """Where a word matched.

    Attributes:
        word: as in the question; the words together first.
        score: what its vectors add to the page's score.
        grid: (rows, columns) float32, its similarity to each place of the page, the mean over its vectors.
    """

    word: str
    score: float
    grid: np.ndarray


def word_maps(retriever: Retriever, question: str, image: Image.Image) -> list[WordMap]:
    """Where on a page the words of a question matched."""
    (query,) = retriever.embed_queries([question])
    patches = retriever.embed_patches(image)
    (page,) = retriever.embed_pages([image])
    best = (query @ page.T).max(axis=1)  # (num_query_vectors,)
    similarity = np.moveaxis(patches @ query.T, -1, 0)  # (num_query_vectors, rows, columns)
    words = [(word, places) for word, places in retriever.query_words(question) if places]
    everything = [place for _, places in words for place in places] or list(range(len(query)))
    return [
        WordMap(word, float(best[places].sum()), similarity[places].mean(axis=0))
        for word, places in [(_ALL, everything), *words]
    ]


def check_results_page(target: Path) -> None:
    """Refuse early what `write_results_page` could not write.

    Raises:
        FileExistsError: a file would be replaced that is none of this program's.
        FileNotFoundError: the folder is not there.
    """
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(f"no folder {target.parent} to write {target.name} in; make it first")
    refuse_foreign(target, lambda path: _GENERATOR.encode() in path.read_bytes()[:1000], "page of search results")


def write_results_page(
    target: Path,
    retriever: Retriever,
    question: str,
    results: Sequence[SearchResult],
    password: str | None = None,
) -> None:
    """Write the results, whole or not at all, with images of the pages and all else within the file.

    Raises:
        FileExistsError: another program's file has the name.
        OSError: it cannot be written.
    """
    title = html.escape(question)
    with whole_file(target, check_results_page) as file, file.open("w", encoding="utf-8", errors="replace") as out:
        out.write(
            f'<!DOCTYPE html>\n<html>\n<head>\n<meta charset="utf-8">\n{_GENERATOR}\n<title>{title}</title>\n'
            f"<style>{_STYLE}{_rules(len(question.split()) + 1)}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        )
        for number, result in enumerate(results, 1):
            out.write(_section(number, result, retriever, question, password))
        out.write("</body>\n</html>\n")


def page_image(result: SearchResult, password: str | None = None) -> Image.Image:
    """The page that was found, rendered again.

    Raises:
        ValueError: it is not what it was when it was indexed, or cannot be read.
        OSError: the document is not there.
    """
    with open_pages(result.path, password=password) as pages:
        image = pages.image(result.page)
    if page_digest(image) != result.digest:
        raise ValueError(f"{result.path} has changed since it was indexed; run python -m mlx_smolvlm.index again")
    return image


def _section(number: int, result: SearchResult, retriever: Retriever, question: str, password: str | None) -> str:
    head = f"<section>\n<h2>{number}. {html.escape(result.path)}, page {result.page} ({result.score:.2f})</h2>\n"
    try:
        image = page_image(result, password)
    except (ValueError, OSError, ImportError) as error:
        return f"{head}<p>No image: {html.escape(str(error))}</p>\n</section>\n"
    chosen, maps = [], []
    for place, found in enumerate(word_maps(retriever, question, image)):
        name = f"r{number}w{place}"
        checked = " checked" if place == 0 else ""
        chosen.append(
            f'<input type="radio" name="r{number}" id="{name}" class="w{place}"{checked}>'
            f'<label for="{name}">{html.escape(found.word)} {found.score:.2f}</label>\n'
        )
        maps.append(f'<img class="map m{place}" alt="" src="{_data_url(_drawn(found.grid), "PNG")}">\n')
    sheet = image.copy()
    sheet.thumbnail((_MAX_SIDE, _MAX_SIDE))
    shown = f'<div class="page"><img alt="page {result.page}" src="{_data_url(sheet, "JPEG")}">\n{"".join(maps)}</div>'
    return f"{head}{''.join(chosen)}{shown}\n</section>\n"


def _rules(count: int) -> str:
    return "\n".join(f".w{place}:checked ~ .page .m{place} {{ opacity: 1; }}" for place in range(count)) + "\n"


def _drawn(grid: np.ndarray) -> Image.Image:
    """A map as a transparent image, the best place the strongest; smoothed, as browsers scale it otherwise in steps."""
    low, high = grid.min(), grid.max()
    share = (grid - low) / (high - low) if high > low else np.zeros_like(grid)
    alpha = Image.fromarray(np.rint(share**2 * _STRONGEST).astype(np.uint8))
    alpha = alpha.resize((grid.shape[1] * 8, grid.shape[0] * 8), Image.Resampling.BICUBIC)
    image = Image.new("RGBA", alpha.size, (*_COLOR, 0))
    image.putalpha(alpha)
    return image


def _data_url(image: Image.Image, form: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, form, optimize=True)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
