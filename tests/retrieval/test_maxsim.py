"""MaxSim equals its definition, whatever the lengths and signs."""

import json

import numpy as np
import pytest
from support.retrievers import GOLDENS

from mlx_smolvlm.retrieval import maxsim as module
from mlx_smolvlm.retrieval.maxsim import check_vectors, maxsim


def brute_force(queries, pages):
    return np.array([[(query @ page.T).max(axis=1).sum() for page in pages] for query in queries])


def some_vectors(lengths, seed=0, size=16):
    random = np.random.default_rng(seed)
    return [random.standard_normal((length, size)).astype(np.float32) for length in lengths]


@pytest.mark.parametrize("most", [1, 100, 10**6])
def test_ragged_pages_and_queries(monkeypatch, most):
    monkeypatch.setattr(module, "MAX_PRODUCTS", most)
    queries, pages = some_vectors([3, 1, 7]), some_vectors([5, 5, 5, 2, 9, 1, 1, 4], seed=1)
    scores = maxsim(queries, pages)
    assert scores.dtype == np.float32
    assert np.abs(scores - brute_force(queries, pages)).max() < 1e-4


def test_best_products_below_zero_stay_below_zero():
    """The reference pads pages with zeros, whose products then win."""
    vectors = np.load(GOLDENS / "vectors.npz")
    queries = [vectors[f"negative/query{number}"] for number in range(3)]
    pages = [vectors[f"negative/page{number}"] for number in range(4)]
    expected = json.loads((GOLDENS / "expected.json").read_text(encoding="utf-8"))["negative_scores"]
    assert np.min(expected) < 0
    assert np.abs(maxsim(queries, pages) - expected).max() < 1e-4


def test_nothing_has_no_scores():
    assert maxsim([], some_vectors([2])).shape == (0, 1)
    assert maxsim(some_vectors([2]), []).shape == (1, 0)


@pytest.mark.parametrize(
    ("vectors", "problem"),
    [
        ([np.ones((2, 3)), np.ones((2, 4))], r"pages\[1\] has vectors of 4 numbers, expected 3"),
        ([np.ones(3)], r"pages\[0\] has shape \(3,\), expected \(num_vectors, vector_size\)"),
        ([np.ones((0, 3))], r"pages\[0\] has shape \(0, 3\)"),
        ([np.array([[1, np.nan]])], r"pages\[0\] holds values that are not finite"),
        (np.ones((2, 3)), "expected a list of arrays"),
    ],
)
def test_other_arrays_are_refused(vectors, problem):
    with pytest.raises(ValueError, match=problem):
        check_vectors("pages", vectors)
