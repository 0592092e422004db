"""What several threads share: it is safe, or the second use is refused with what to do."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.media import picture

from mlx_smolvlm import BatchRequest, FeatureCache, PromptCache, Rows, Session, generate_text, stream_generate

QUESTION = "What is this?"
TASKS = Path("/proc/self/task")


def num_os_threads():
    time.sleep(0.1)  # a thread that was joined is still listed for a moment
    return len(os.listdir(TASKS))


def stream(pair, cache, **options):
    return stream_generate(*pair, QUESTION, max_tokens=4, prompt_cache=cache, **options)


def test_a_prompt_cache_is_for_one_stream_at_a_time(demo):
    cache = PromptCache()
    first = stream(demo, cache)
    next(first)
    with pytest.raises(ValueError, match="in use by another stream; finish or close that one first"):
        next(stream(demo, cache))
    first.close()
    assert list(stream(demo, cache))[-1].finish_reason is not None


def test_a_prompt_cache_is_free_after_the_last_step(demo):
    """The consumer need not ask for what comes after it."""
    cache, steps = PromptCache(), []
    held = stream(demo, cache, prompt_lookup_tokens=4)
    while not steps or steps[-1].finish_reason is None:
        steps.append(next(held))
    again = list(stream(demo, cache))
    assert [step.token_id for step in again] == [step.token_id for step in steps]
    assert list(held) == []


def test_a_prompt_cache_is_free_after_an_error_and_after_a_cancel(demo):
    cache, cancel = PromptCache(), threading.Event()
    with pytest.raises(FileNotFoundError):
        list(stream(demo, cache, images=["nowhere.png"]))
    cancel.set()
    assert next(stream(demo, cache, cancel=cancel)).finish_reason == "cancelled"
    assert list(stream(demo, cache))


def test_threads_that_share_a_prompt_cache_get_right_answers_or_are_refused(demo):
    """It was a crash of the process."""
    cache, right = PromptCache(), "".join(step.text for step in stream(demo, None))

    def ask(_):
        try:
            return "".join(step.text for step in stream(demo, cache))
        except ValueError as error:
            return "refused" if "in use by another stream" in str(error) else str(error)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(ask, range(16))) <= {right, "refused"}


def test_threads_share_a_feature_cache(demo):
    features, images = FeatureCache(max_bytes=100_000), [picture("tiny"), picture("second"), picture("portrait")]
    right = [generate_text(*demo, QUESTION, images=[image], max_tokens=6) for image in images]

    def ask(number):
        image = images[number % 3]
        return generate_text(*demo, QUESTION, images=[image], max_tokens=6, feature_cache=features)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(12))) == right * 4
    assert 0 < features.size_bytes == sum(array.nbytes for array in features._features.values()) <= 100_000


def test_a_feature_cache_refuses_a_bound_that_is_none():
    """It failed in the midst of an answer."""
    for bound in (-1, 1.5, "1", None, True):
        with pytest.raises(ValueError, match=r"max_bytes is .*, expected a whole number"):
            FeatureCache(bound)


def test_rows_take_one_call_at_a_time(pair, monkeypatch):
    with Rows(*pair) as rows:
        rows.add(BatchRequest(QUESTION), max_tokens=2)
        calls = [rows.step, lambda: rows.add(BatchRequest(QUESTION)), lambda: rows.remove(0), rows.close]
        errors, read = [], rows._read

        def read_and_disturb():
            monkeypatch.setattr(rows, "_read", read)
            with ThreadPoolExecutor(1) as pool:
                errors.extend(str(pool.submit(call).exception()) for call in calls)
            return read()

        monkeypatch.setattr(rows, "_read", read_and_disturb)
        while rows:
            rows.step()
    assert errors == ["the rows are in use by another call, in another thread; make one call at a time"] * 4


def test_a_session_that_is_saved_is_in_use(pair, monkeypatch, tmp_path):
    session, found = Session(*pair), []

    def write(*_):
        for call in (lambda: session.ask(QUESTION), session.undo):
            with pytest.raises(ValueError, match="still being made, or the session saved"):
                call()
            found.append(call)

    monkeypatch.setattr("mlx_smolvlm.api.session.write_session", write)
    session.save(tmp_path / "file")
    assert len(found) == 2
    assert list(session.ask(QUESTION, max_tokens=2))


@pytest.mark.skipif(not TASKS.is_dir(), reason="counts OS threads in /proc")
@pytest.mark.parametrize("num_threads", [12, pytest.param(1000, marks=pytest.mark.slow)])
def test_threads_that_end_leave_one_os_thread_of_mlx_each(demo, num_threads):
    """A thread for each request: it was three for each, two of them side streams of the encoder."""

    def ask():
        generate_text(*demo, QUESTION, images=[picture("tiny")], max_tokens=2)

    def run_in_thread():
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()

    run_in_thread()  # begins the worker
    before = num_os_threads()
    for _ in range(num_threads):
        run_in_thread()
    assert num_os_threads() - before <= num_threads


@pytest.mark.skipif(not TASKS.is_dir(), reason="counts OS threads in /proc")
def test_a_pool_keeps_its_number_of_os_threads(demo):
    counts = []
    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            barrier = threading.Barrier(4)

            def ask(_, barrier=barrier):
                barrier.wait(60)  # so that each of the threads takes one
                generate_text(*demo, QUESTION, images=[picture("tiny")], max_tokens=2)

            list(pool.map(ask, range(4)))
            counts.append(num_os_threads())
    assert max(counts[1:]) <= counts[0]
