"""Independent parts of one computation, side by side, in streams that stay few.

MLX gives each stream of a CPU an OS thread of its own, and keeps both for as long as the process lives, even when the
Python thread that used them has ended. So only two threads use side streams: the main thread, and one worker that
computes for all others. A program with a thread for each request then grows by MLX's own default stream alone.
"""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, partial
from itertools import pairwise
from typing import TypeVar

import mlx.core as mx

T = TypeVar("T")
_POLL_S = 0.05  # how often a wait for the worker asks whether it is still wanted


def side_by_side(function: Callable[[mx.array], mx.array], rows: mx.array) -> mx.array:
    """function(rows), for a function that treats each row, (num_rows, ...) -> (num_rows, ...), apart.

    A GPU has all of them to itself. On a CPU, whatever is no matrix product runs on one core of its stream, so that
    the rows are shared among streams there: in the main thread, and within `with_side_streams`.
    """
    count = min(rows.shape[0], os.cpu_count() or 1)
    if count == 1 or not _has_streams():
        return function(rows)
    ends = [number * rows.shape[0] // count for number in range(count + 1)]

    def part(start: int, end: int) -> mx.array:
        return function(rows[start:end])

    return mx.concatenate(each_side_by_side([partial(part, start, end) for start, end in pairwise(ends)]))


def each_side_by_side(functions: Sequence[Callable[[], mx.array]]) -> list[mx.array]:
    """The lazy results of some functions, each computed in the next of the side streams where there are any."""
    if len(functions) < 2 or not _has_streams():
        return [function() for function in functions]
    results, streams = [], _streams()
    for number, function in enumerate(functions):
        with mx.stream(streams[number % len(streams)]):
            results.append(function())
    return results


def with_side_streams(function: Callable[[], T], num_rows: int, check_cancelled: Callable[[], None]) -> T:
    """Call a function, in the worker if that is where its `side_by_side` may share out `num_rows`.

    The function evaluates the arrays that it returns, and uses none that are not evaluated: such arrays belong to the
    thread that made them. `check_cancelled` is called while the worker is waited for, which may be busy with others; if
    it raises, the function is not begun, or its result is dropped.
    """
    if num_rows == 1 or os.cpu_count() == 1 or mx.default_device() == mx.gpu or _may_use_streams():
        return function()

    def on_cpu() -> T:
        with mx.stream(mx.cpu):
            return function()

    with _BEGINNING:  # two threads at once would otherwise begin two workers
        worker = _worker()
    result = worker.submit(on_cpu)
    try:
        while not wait([result], _POLL_S).done:
            check_cancelled()
    except BaseException:
        result.cancel()
        raise
    return result.result()


_WORKER_NAME = "side streams of mlx_smolvlm"
_BEGINNING = threading.Lock()


def _has_streams() -> bool:
    return mx.default_device() == mx.cpu and (os.cpu_count() or 1) > 1 and _may_use_streams()


def _may_use_streams() -> bool:
    thread = threading.current_thread()
    return thread is threading.main_thread() or thread.name.startswith(_WORKER_NAME)


@cache
def _worker() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix=_WORKER_NAME)


@cache
def _streams() -> list[mx.ThreadLocalStream]:
    return [mx.new_thread_local_stream(mx.cpu) for _ in range(os.cpu_count() or 1)]
