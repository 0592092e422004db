"""An index holds each page once, follows its documents, survives kills, and finds what brute force finds."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from support.page_indexes import (
    QUERY,
    SETTINGS,
    assert_same,
    brute_force,
    color,
    run_index,
    scores_of,
    write_documents,
)

from mlx_smolvlm.retrieval import index_writer
from mlx_smolvlm.retrieval.index_writer import IndexWriter
from mlx_smolvlm.retrieval.manifest import MANIFEST, read_manifest
from mlx_smolvlm.retrieval.page_index import PageIndex
from mlx_smolvlm.retrieval.pooling import pool


def test_a_search_finds_what_brute_force_finds(tmp_path, monkeypatch):
    counts = [3, 1, 50, 7]
    paths = write_documents(tmp_path / "in", counts)
    run_index(tmp_path / "index", paths)
    expected = brute_force(paths, counts)
    assert_same(scores_of(tmp_path / "index"), expected)
    monkeypatch.setattr("mlx_smolvlm.retrieval.cpu_scores._BLOCK_BYTES", 100)
    assert_same(scores_of(tmp_path / "index"), expected)
    assert_same(scores_of(tmp_path / "index", 4), expected[:4])


def test_files_of_vectors_stay_few(tmp_path, monkeypatch):
    """Small ones are joined while the index grows, and what is full is left alone."""
    monkeypatch.setattr(index_writer, "COMMIT_PAGES", 2)
    monkeypatch.setattr(index_writer, "CHUNK_BYTES", 1000)  # some 14 pages
    counts = [50, 3, 27]
    paths = write_documents(tmp_path / "in", counts)
    run_index(tmp_path / "index", paths, finish=False)
    chunks = read_manifest(tmp_path / "index").chunks
    assert len(list((tmp_path / "index").glob("*.npy"))) == len(chunks) <= 20
    assert max(16 * chunk.num_vectors for chunk in chunks) <= 1000
    assert_same(scores_of(tmp_path / "index"), brute_force(paths, counts))
    run_index(tmp_path / "index", paths)
    assert len(read_manifest(tmp_path / "index").chunks) <= 10
    assert_same(scores_of(tmp_path / "index"), brute_force(paths, counts))


def test_a_page_of_several_documents_is_read_once_and_found_in_each(tmp_path):
    (first,) = write_documents(tmp_path, [2])
    second = shutil.copy(first, tmp_path / "copy.tif")
    third = tmp_path / "a page.png"
    color(1).save(third)
    plan, errors, embedded = run_index(tmp_path / "index", [first, second, third])
    assert (plan.num_new, plan.num_pages, errors, embedded) == (3, 5, [], 2)
    manifest = read_manifest(tmp_path / "index")
    assert (manifest.num_pages, len(manifest.stored)) == (5, 2)
    found = scores_of(tmp_path / "index")
    same = [entry[:2] for entry in found if entry[2] == next(e[2] for e in found if e[0] == "a page.png")]
    assert same == [("a page.png", 1), ("copy.tif", 2), ("document0.tif", 2)]  # ties by path


def test_only_what_is_new_or_changed_is_read(tmp_path):
    paths, index = write_documents(tmp_path, [2, 3]), tmp_path / "index"
    assert run_index(index, paths)[2] == 5
    before = {file.name: file.read_bytes() for file in index.iterdir()}
    plan, _, embedded = run_index(index, paths)
    assert (plan.num_unchanged, plan.num_pages, embedded) == (2, 0, 0)
    assert {file.name: file.read_bytes() for file in index.iterdir()} == before
    color(0).save(paths[0], save_all=True, append_images=[color(100)])
    plan, _, embedded = run_index(index, paths)
    assert (plan.num_changed, plan.num_unchanged, plan.num_pages, embedded) == (1, 1, 2, 1)
    assert len(read_manifest(index).stored) == 5  # the page that is gone is released
    assert len([file for file in index.iterdir() if file.suffix == ".npy"]) == 1


def test_a_document_that_is_named_twice_counts_once(tmp_path, monkeypatch):
    paths = write_documents(tmp_path / "in", [2])
    monkeypatch.chdir(tmp_path / "in")
    plan, _, embedded = run_index(tmp_path / "index", [paths[0], "document0.tif", "./document0.tif"])
    assert (plan.num_new, plan.num_pages, embedded) == (1, 2, 2)


def test_vanished_documents_go_if_that_is_asked_for(tmp_path):
    paths, index = write_documents(tmp_path, [2, 3]), tmp_path / "index"
    run_index(index, paths)
    paths[1].unlink()
    run_index(index, paths[:1])
    assert read_manifest(index).num_pages == 5
    run_index(index, [], prune=True)
    assert {entry[0] for entry in scores_of(index)} == {"document0.tif"}
    assert len(read_manifest(index).stored) == 2


def test_one_bad_page_or_document_never_loses_the_others(tmp_path):
    pages = [color(1), Image.new("RGB", (13, 13)), color(2)]
    pages[0].save(tmp_path / "some.tif", save_all=True, append_images=pages[1:])
    color(3).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    sources = sorted(tmp_path.iterdir())
    _, errors, embedded = run_index(tmp_path / "index", sources)
    assert embedded == 3
    assert [(name, page) for name, page, _ in errors] == [("bad.png", 1), ("some.tif", 2)]
    assert sorted(entry[:2] for entry in scores_of(tmp_path / "index")) == [
        ("good.png", 1),
        ("some.tif", 1),
        ("some.tif", 3),
    ]
    plan, errors, embedded = run_index(tmp_path / "index", sources)  # tried again
    assert (plan.num_unchanged, len(errors), embedded) == (1, 2, 0)


def test_a_run_that_is_stopped_keeps_what_it_has(tmp_path):
    paths = write_documents(tmp_path / "in", [30, 30])
    answers = iter([False] * 40 + [True])
    _, _, first = run_index(tmp_path / "index", paths, finish=False, is_cancelled=lambda: next(answers))
    assert 30 <= first < 60
    assert run_index(tmp_path / "index", paths)[2] == 60 - first


def test_damaged_files_are_refused_and_made_again(tmp_path):
    paths, index = write_documents(tmp_path / "in", [6]), tmp_path / "index"
    run_index(index, paths)
    expected = scores_of(index)
    (chunk,) = index.glob("*.npy")
    whole = chunk.read_bytes()
    for damaged in (whole[:-8], bytes(len(whole)), None):  # the last is a pipe, which was waited for
        chunk.unlink(missing_ok=True)
        if damaged is None:
            os.mkfifo(chunk)
        else:
            chunk.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{chunk.name} is .*run python -m mlx_smolvlm\.index again"):
            PageIndex(index).search(QUERY, 1)
        with IndexWriter(index, SETTINGS) as writer:
            assert "its 6 pages are read again" in writer.notes[0]
        chunk.unlink(missing_ok=True)
        assert run_index(index, paths)[2] == 6
        assert scores_of(index) == expected
        (chunk,) = index.glob("*.npy")


def test_vectors_that_are_not_finite_are_refused(tmp_path):
    index = tmp_path / "index"
    run_index(index, write_documents(tmp_path / "in", [2]))
    (chunk,) = index.glob("*.npy")
    vectors = np.load(chunk)
    vectors[1, 2] = np.nan
    np.save(chunk, vectors)
    with pytest.raises(ValueError, match="holds vectors that are not finite"):
        PageIndex(index).search(QUERY, 1)
    with IndexWriter(index, SETTINGS) as writer:  # which called it unchanged
        assert "is gone or damaged: its 2 pages are read again" in writer.notes[0]


def test_two_processes_do_not_write_one_index(tmp_path):
    with (
        IndexWriter(tmp_path / "index", SETTINGS),
        pytest.raises(OSError, match="is being written by another process"),
    ):
        IndexWriter(tmp_path / "index", SETTINGS)
    IndexWriter(tmp_path / "index", SETTINGS).__exit__()


def test_a_search_goes_on_while_files_are_joined(tmp_path, monkeypatch):
    monkeypatch.setattr(index_writer, "COMMIT_PAGES", 4)
    paths, index = write_documents(tmp_path / "in", [20]), tmp_path / "index"
    run_index(index, paths, finish=False)
    opened = PageIndex(index)
    assert len(opened.manifest.chunks) == 5
    run_index(index, paths)
    assert len(opened.search(QUERY, 100)) == 20
    assert len(opened.manifest.chunks) == 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"version": 2}, "written by a newer version of this program"),
        ({"version": "1"}, "the version is '1', expected a number"),
        ({"format": "other"}, "is no index of pages of this program"),
        ({"chunks": [{"file": "../secret.npy", "pages": []}]}, "names the file '../secret.npy', which no index has"),
        ({"chunks": [{"file": "vectors-000001.npy", "pages": [["x", 1]]}]}, "has pages that are none"),
        ({"documents": [{"path": "a"}]}, "is damaged"),
        ({"adapters": [["a"]]}, "is damaged"),
        ({"chunks": [1]}, "is damaged"),
        ({"vector_size": 0}, "'vector_size' is 0, expected a positive number"),
    ],
)
def test_other_manifests_are_refused(tmp_path, change, problem):
    run_index(tmp_path / "index", write_documents(tmp_path / "in", [1]))
    file = tmp_path / "index" / MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    for use in (read_manifest, lambda folder: IndexWriter(folder, SETTINGS)):
        with pytest.raises(ValueError, match=problem):
            use(tmp_path / "index")


def test_folders_that_are_no_index_are_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    (tmp_path / "file").write_text("x")
    for name, problem in (("mine", "exists already and is no index"), ("file", "exists already and is no folder")):
        with pytest.raises(FileExistsError, match=problem):
            IndexWriter(tmp_path / name, SETTINGS)
    with pytest.raises(FileNotFoundError, match=r"no index of pages: no index\.json in it"):
        PageIndex(tmp_path / "mine")
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["file"]


def test_a_folder_that_may_not_be_written_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # permissions do not bind root
    with pytest.raises(PermissionError, match="may not be written; choose another --out"):
        IndexWriter(tmp_path / "index", SETTINGS)
    assert not (tmp_path / "index").exists()


def test_pooled_vectors_stand_for_the_page():
    vectors = np.random.default_rng(3).standard_normal((101, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.array_equal(pool(vectors, 1), vectors)
    pooled = pool(vectors, 3)
    assert pooled.shape[0] <= 34
    assert np.allclose(np.linalg.norm(pooled, axis=1), 1, atol=1e-5)
    assert np.array_equal(pool(vectors, 3), pooled)
    best = (vectors @ pooled.T).max(axis=1).mean()
    assert best > (vectors @ vectors[::3].T).max(axis=1).mean() - 0.2
    assert best > (vectors @ pooled[::-1][:5].T).max(axis=1).mean()
    doubled = np.repeat(vectors[:10], 2, axis=0)
    assert np.allclose(np.sort(pool(doubled, 2), axis=0), np.sort(vectors[:10], axis=0), atol=1e-6)
