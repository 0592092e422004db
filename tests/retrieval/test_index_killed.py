"""Indexes whose writers are killed, and large ones."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from support.page_indexes import (
    QUERY,
    SETTINGS,
    ColorRetriever,
    assert_same,
    brute_force,
    run_index,
    scores_of,
    write_documents,
)

from mlx_smolvlm.retrieval import index_writer
from mlx_smolvlm.retrieval.index_writer import IndexWriter
from mlx_smolvlm.retrieval.manifest import MANIFEST, IndexedDocument, Manifest, read_manifest
from mlx_smolvlm.retrieval.page_index import PageIndex


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_wherever_a_run_ends_the_next_one_completes_it(tmp_path, monkeypatch, stride):
    """Ended before and after each write and removal, one after the other, in a run that also releases and joins."""
    paths = write_documents(tmp_path / "in", [2, 3, 4, 5, 2])
    run_index(tmp_path / "clean", paths[1:])
    expected = scores_of(tmp_path / "clean")
    monkeypatch.setattr(index_writer, "COMMIT_PAGES", 3)
    monkeypatch.setattr(index_writer, "CHUNK_BYTES", 600)  # some 8 pages: files are joined on the way, too
    run_index(tmp_path / "begun", paths[:2], finish=False)
    paths[0].unlink()
    steps = last_step = 0

    def counted(function):
        def call(*arguments, **options):
            result = None
            for is_after in (False, True):
                nonlocal steps
                steps += 1
                if steps == last_step:
                    raise Killed
                if not is_after:
                    result = function(*arguments, **options)
            return result

        return call

    for place, name in ((IndexWriter, "_write_chunk"), (Manifest, "write"), (type(tmp_path), "unlink")):
        monkeypatch.setattr(place, name, counted(getattr(place, name)))
    was_killed, wanted = True, 1
    while was_killed:
        index = shutil.copytree(tmp_path / "begun", tmp_path / f"index{wanted}")
        retriever, was_killed = ColorRetriever(), False
        steps, last_step = 0, wanted
        try:
            run_index(index, paths[1:], retriever, prune=True)
        except Killed:
            was_killed, last_step = True, 0
            PageIndex(index).search(QUERY, 1)  # whole at any time
            run_index(index, paths[1:], retriever, prune=True)
        assert scores_of(index) == expected
        assert 11 <= retriever.num_pages <= 11 + 3 + 4  # what was read and not yet written
        names = {file.name for file in index.iterdir()}
        assert names == {MANIFEST, *(chunk.file for chunk in read_manifest(index).chunks)}
        wanted += stride
    assert wanted > 20


KILLED_RUN = """
import sys, time
from pathlib import Path
from support.page_indexes import ColorRetriever, run_index
class Slow(ColorRetriever):
    def stream_pages(self, images):
        for vectors in super().stream_pages(images):
            time.sleep(0.003)
            yield vectors
run_index(Path(sys.argv[1]), sys.argv[2:], Slow())
"""


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_each_page_is_there_once(tmp_path):
    counts = [40] * 25
    paths = write_documents(tmp_path / "in", counts)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED_RUN, tmp_path / "index", *paths]
    for moment in np.random.default_rng(1).uniform(0.3, 3, 10):
        process = subprocess.Popen(command, env=environment)
        time.sleep(1 + moment)
        process.kill()
        process.wait()
    assert subprocess.run(command, env=environment, timeout=300).returncode == 0
    assert_same(scores_of(tmp_path / "index"), brute_force(paths, counts))
    assert {file.suffix for file in (tmp_path / "index").iterdir()} == {".json", ".npy"}


LARGE_SEARCH = """
import resource, sys
from pathlib import Path
import numpy as np
from mlx_smolvlm.retrieval.page_index import PageIndex
def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
query = np.load(sys.argv[2])
before = peak_bytes()
found = PageIndex(Path(sys.argv[1])).search(query, 20)
print([result.page for result in found], peak_bytes() - before)
"""


@pytest.mark.slow
def test_a_large_index_is_searched_in_bounded_memory(tmp_path):
    """2,000 pages of 875 vectors, 448 MB, by a process of its own; docs/retrieval.md has figures of 10,000."""
    num_pages, size, random = 2000, 128, np.random.default_rng(0)
    settings = dataclasses.replace(SETTINGS, vector_size=size)
    query = random.standard_normal((22, size)).astype(np.float32)
    expected, digests = [], [f"{number:032x}" for number in range(num_pages)]
    with IndexWriter(tmp_path / "index", settings) as writer:
        for digest in digests:
            page = (random.standard_normal((875, size), np.float32) / size**0.5).astype(np.float16)
            expected.append((query @ page.astype(np.float32).T).max(axis=1).sum())
            writer.add(digest, page)
        writer.set_document(IndexedDocument("long.pdf", "", tuple(digests)))
        writer.finish()
    np.save(tmp_path / "query.npy", query)
    command = [sys.executable, "-c", LARGE_SEARCH, tmp_path / "index", tmp_path / "query.npy"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    pages, _, grown = done.stdout.rpartition(" ")
    assert json.loads(pages) == [int(place) + 1 for place in np.argsort(expected)[::-1][:20]]
    assert int(grown) < 300 * 1024**2
