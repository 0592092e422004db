"""How far one retriever's vectors are from another's, measured on pages."""

from pathlib import Path
from typing import Any

import numpy as np

from ..documents.page_images import find_documents, page_images
from ..media.reporting import report
from ..retrieval.maxsim import maxsim
from ..retrieval.retriever_loading import load_retriever

MAX_PAGES = 200
QUERIES_FILE = "queries.txt"
_QUERIES = (
    *("What is the total?", "table with figures by year", "chart of results", "Who is responsible?"),
    *("list of references", "definition", "How does it work?", "date and place", "summary", "contents"),
)


def compare_retrievers(reference: str, candidate: str, data: Path, dtype: str = "float32") -> dict[str, Any]:
    """Have both embed the same pages and queries.

    Args:
        reference, candidate: folders or Hub ids of ColIdefics3 checkpoints.
        data: a folder of PDFs and images, of which at most MAX_PAGES pages are taken; QUERIES_FILE in it has a query in
            each line, in place of those built in.
        dtype: what both compute in.

    Returns:
        Number of pages and queries; mean and least cosine between the two vectors of each token of pages and of
        queries; the share of queries that have the same best page, and the mean difference of scores as a share of
        the reference's.

    Raises:
        ValueError, OSError: pages that cannot be read, or checkpoints that make vectors of other numbers of tokens.
    """
    queries = _queries(data)
    images = []
    for page in page_images(find_documents([str(data)])):
        images.append(page.image)
        if len(images) == MAX_PAGES:
            break
    embedded = []
    for name in (reference, candidate):
        report(f"embedding {len(images)} pages")
        retriever = load_retriever(name, dtype=dtype)
        embedded.append((retriever.embed_pages(images), retriever.embed_queries(queries)))
    (pages, questions), (other_pages, other_questions) = embedded
    scores, others = maxsim(questions, pages), maxsim(other_questions, other_pages)
    page_mean, page_least = _cosines(pages, other_pages)
    query_mean, query_least = _cosines(questions, other_questions)
    return {
        "reference": reference,
        "candidate": candidate,
        "num_pages": len(pages),
        "num_queries": len(queries),
        "page_cosine_mean": page_mean,
        "page_cosine_least": page_least,
        "query_cosine_mean": query_mean,
        "query_cosine_least": query_least,
        "same_best_page": float((scores.argmax(axis=1) == others.argmax(axis=1)).mean()),
        "score_difference": float((np.abs(scores - others) / np.abs(scores)).mean()),
        "measured_on": data.name,
        "computed_in": dtype,
    }


def comparison_text(measures: dict[str, Any]) -> str:
    """The measures in lines."""
    return "\n".join(
        [
            f"reference: {measures['reference']}",
            f"candidate: {measures['candidate']}",
            f"measured on {measures['measured_on']}: {measures['num_pages']} pages, {measures['num_queries']} queries",
            "",
            f"{'cosine of vectors':<22}{'mean':>16}{'least':>16}",
            *(
                f"{name:<22}{measures[f'{kind}_cosine_mean']:>16.6f}{measures[f'{kind}_cosine_least']:>16.6f}"
                for name, kind in (("pages", "page"), ("queries", "query"))
            ),
            f"{'same best page':<22}{measures['same_best_page']:>16.1%}",
            f"{'scores differ by':<22}{measures['score_difference']:>16.2%}",
        ]
    )


def _queries(data: Path) -> list[str]:
    file = data / QUERIES_FILE
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else list(_QUERIES)
    if not (queries := [line for line in lines if line.strip()]):
        raise ValueError(f"{file} has no queries; write one in each line")
    return queries


def _cosines(one: list[np.ndarray], other: list[np.ndarray]) -> tuple[float, float]:
    """Mean and least."""
    if any(a.shape != b.shape for a, b in zip(one, other, strict=True)):
        raise ValueError("the two checkpoints cut pages differently, or make vectors of different widths")
    found = np.concatenate([(a * b).sum(axis=1) for a, b in zip(one, other, strict=True)])
    return float(found.mean()), float(found.min())
