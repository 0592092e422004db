"""Independent parts of one computation, side by side."""

import os
from collections.abc import Callable
from functools import cache

import mlx.core as mx


def side_by_side(function: Callable[[mx.array], mx.array], rows: mx.array) -> mx.array:
    """function(rows), for a function that treats each row, (num_rows, ...) -> (num_rows, ...), apart.

    A GPU has all of them to itself. On a CPU, whatever is no matrix product runs on one core of its stream, so that
    the rows are shared among streams there.
    """
    count = min(rows.shape[0], os.cpu_count() or 1)
    if count == 1 or mx.default_device() == mx.gpu:
        return function(rows)
    results = []
    for number, stream in enumerate(_streams()[:count]):
        with mx.stream(stream):
            results.append(function(rows[number * rows.shape[0] // count : (number + 1) * rows.shape[0] // count]))
    return mx.concatenate(results)


@cache
def _streams() -> list[mx.ThreadLocalStream]:
    return [mx.new_thread_local_stream(mx.cpu) for _ in range(os.cpu_count() or 1)]
