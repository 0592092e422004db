"""Scores on a CPU: float16 becomes float32 exactly, and pages of whatever lengths have the scores of MaxSim."""

import numpy as np
import pytest

from mlx_smolvlm.retrieval import cpu_scores as module
from mlx_smolvlm.retrieval.cpu_scores import cpu_scores, widen


def test_every_finite_float16_is_widened_exactly():
    numbers = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = numbers[np.isfinite(numbers)]
    widened = widen(finite, np.empty(finite.shape, np.int32))
    assert np.array_equal(widened.view(np.int32), finite.astype(np.float32).view(np.int32))  # -0.0 is not 0.0


@pytest.mark.parametrize("bits", [0x7C00, 0x7FFF, 0xFC00, 0xFC01, 0xFFFF])
def test_infinities_and_nans_are_refused(bits):
    numbers = np.array([1, bits, 0x8000], np.uint16).view(np.float16)
    with pytest.raises(ValueError, match="not finite"):
        widen(numbers, np.empty(3, np.int32))


@pytest.mark.parametrize("block_bytes", [1, 64 * 20, 2**20])
def test_pages_of_any_lengths_have_the_scores_of_brute_force(monkeypatch, block_bytes):
    monkeypatch.setattr(module, "_BLOCK_BYTES", block_bytes)
    random = np.random.default_rng(3)
    lengths = [9, 1, 1, 12, 12, 12, 3, 30, 5]
    vectors = (random.standard_normal((sum(lengths), 16)) - 1).astype(np.float16)
    query = random.standard_normal((40, 16)).astype(np.float32)
    ends = np.cumsum(lengths)
    pages = [vectors[end - length : end].astype(np.float32) for end, length in zip(ends, lengths, strict=True)]
    expected = [(query @ page.T).max(axis=1).sum() for page in pages]
    assert np.abs(cpu_scores(query, vectors, lengths) - expected).max() < 1e-4
