"""Indexes without a model: a retriever whose vectors depend on the pixels alone, and documents of coloured pages."""

import os
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from mlx_smolvlm.retrieval.index_writer import IndexWriter
from mlx_smolvlm.retrieval.indexing import page_digest, plan_update, update
from mlx_smolvlm.retrieval.manifest import IndexSettings
from mlx_smolvlm.retrieval.page_index import PageIndex

QUERY = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
SETTINGS = IndexSettings("model", (), "float32", "f" * 32, "training", 8, 1)


class ColorRetriever:
    """Vectors of 8 numbers by the pixels' digest, from 3 to 6 of them a page; counts what it embeds."""

    def __init__(self):
        self.num_pages = 0

    def stream_pages(self, images):
        images = iter(images)
        while batch := list(islice(images, 4)):
            for image in batch:
                if image.size == (13, 13):
                    yield ValueError("an unlucky page")
                else:
                    self.num_pages += 1
                    yield vectors_of(image)


def vectors_of(image: Image.Image) -> np.ndarray:
    seed = int(page_digest(image)[:8], 16)
    vectors = np.random.default_rng(seed).standard_normal((3 + seed % 4, 8)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def color(number: int) -> Image.Image:
    """A page that no other number has."""
    return Image.new("RGB", (20, 30), (number % 256, number // 256, 7))


def write_documents(folder: Path, counts: list[int]) -> list[Path]:
    """TIFF files of so many pages each, none of them like another."""
    folder.mkdir(parents=True, exist_ok=True)
    paths, number = [], 0
    for index, count in enumerate(counts):
        pages = [color(number + page) for page in range(count)]
        number += count
        paths.append(folder / f"document{index}.tif")
        pages[0].save(paths[-1], save_all=True, append_images=pages[1:])
    return paths


def run_index(folder: Path, sources, retriever=None, *, settings=SETTINGS, prune=False, finish=True, is_cancelled=None):
    """Bring an index up to date as the command does; returns (plan, errors, embedded pages)."""
    retriever, errors = retriever or ColorRetriever(), []
    before = retriever.num_pages

    def on_error(source, page, error):
        errors.append((Path(source).name, page, str(error)))

    with IndexWriter(folder, settings) as writer:
        plan = plan_update(writer, [str(source) for source in sources], on_error)
        update(writer, retriever, plan.todo, on_error=on_error, is_cancelled=is_cancelled or (lambda: False))
        if prune:
            writer.prune()
        if finish:
            writer.finish()
    return plan, errors, retriever.num_pages - before


def scores_of(folder, top_k=10**6):
    """(name, page, score) of all results, best first."""
    found = PageIndex(folder).search(QUERY, top_k)
    return [(os.path.basename(one.path), one.page, one.score) for one in found]


def brute_force(paths, num_pages):
    """The same from the pages' own vectors, rounded as they are stored."""
    scores, number = [], 0
    for path, count in zip(paths, num_pages, strict=True):
        for page in range(1, count + 1):
            vectors = vectors_of(color(number)).astype(np.float16).astype(np.float32)
            scores.append((path.name, page, (QUERY @ vectors.T).max(axis=1).sum()))
            number += 1
    return sorted(scores, key=lambda entry: (-entry[2], entry[0], entry[1]))


def assert_same(found, expected):
    assert [entry[:2] for entry in found] == [entry[:2] for entry in expected]
    assert np.allclose([entry[2] for entry in found], [entry[2] for entry in expected], atol=1e-4)
