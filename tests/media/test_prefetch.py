"""Work ahead in threads: order, bounds, errors, and nothing left behind."""

import threading
import time

import pytest
from support.patience import until

from mlx_smolvlm.media.prefetch import Prefetched, mapped_in_threads


def prefetch_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("mlx_smolvlm")]


def test_items_come_in_order():
    assert list(Prefetched(iter(range(100)), 3)) == list(range(100))
    assert prefetch_threads() == []


def test_it_runs_ahead_by_the_depth_and_no_further():
    made = []
    items = Prefetched((made.append(number) or number for number in range(100)), 2)
    next(items)
    until(lambda: len(made) == 4)  # one taken, two waiting, one in hand
    time.sleep(0.1)
    assert len(made) == 4
    items.close()


def test_an_error_arrives_where_the_item_would_have():
    def broken():
        yield 1
        raise ValueError("no second one")

    items = Prefetched(broken(), 4)
    assert next(items) == 1
    with pytest.raises(ValueError, match="no second one"):
        next(items)
    assert prefetch_threads() == []


def test_closing_stops_the_thread_and_closes_the_source():
    closed = []

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed.append(threading.current_thread() is not threading.main_thread())

    items = Prefetched(endless(), 2)
    next(items)
    items.close()
    assert closed == [True]
    assert prefetch_threads() == []


def test_threads_keep_the_order_of_the_items():
    def slow_when_even(number: int) -> int:
        time.sleep(0.002 * (number % 2 == 0))
        return number * number

    assert list(mapped_in_threads(slow_when_even, range(20), 3)) == [number**2 for number in range(20)]
    assert prefetch_threads() == []
