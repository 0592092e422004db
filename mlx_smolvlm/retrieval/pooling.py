"""Fewer vectors for a page: like ones are replaced by their mean, which makes an index smaller and a search quicker."""

import numpy as np

MAX_POOL_FACTOR = 16
_ROUNDS = 10


def pool(vectors: np.ndarray, factor: int) -> np.ndarray:
    """Cluster the vectors of a page and take the mean direction of each cluster.

    Spherical k-means with one cluster for `factor` vectors, begun at every `factor`-th vector: the result is the same
    each time. (colpali-engine's hierarchical pooling clusters by Ward's method, which needs scipy.)

    Args:
        vectors: (num_vectors, vector_size) float32, of length 1.
        factor: 1 changes nothing.

    Returns:
        At most ceil(num_vectors / factor) rows, float32, of length 1.
    """
    if factor == 1:
        return vectors
    centers = vectors[::factor]
    nearest = np.full(len(vectors), -1)
    for _ in range(_ROUNDS):
        found = (vectors @ centers.T).argmax(axis=1)
        if np.array_equal(found, nearest):
            break
        nearest = found
        sums = np.zeros_like(centers)
        np.add.at(sums, nearest, vectors)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centers = np.where(lengths > 0, sums / np.maximum(lengths, np.finfo(np.float32).tiny), centers)
    pooled: np.ndarray = centers[np.unique(nearest)]
    return pooled
