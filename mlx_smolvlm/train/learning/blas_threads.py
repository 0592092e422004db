"""The threads of OpenBLAS, where that is loaded for MLX's matrix products: on Linux, as the README tells to."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import mlx.core as mx


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within: each product is computed by the thread that asks for it.

    OpenBLAS has one group of threads for the whole process. What is computed side by side would wait for it in turn,
    and take longer than one after the other.
    """
    library = _openblas() if mx.default_device() == mx.cpu else None
    if library is None:
        yield
        return
    before = library.openblas_get_num_threads()
    library.openblas_set_num_threads(1)
    try:
        yield
    finally:
        library.openblas_set_num_threads(before)


@cache
def _openblas() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None)  # what has been loaded for all; numpy's own copy has other names
    return library if hasattr(library, "openblas_set_num_threads") else None
