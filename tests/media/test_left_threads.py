"""What videos leave of threads and open files: nothing within a second, without Python's garbage collector."""

import _thread
import gc
import os
import random
import threading
import time
from pathlib import Path

import pytest
from support.leftovers import held
from support.media import video_path

from mlx_smolvlm import BatchRequest, Session, generate_batch, stream_captions, stream_generate
from mlx_smolvlm.media.video.frames import read_frames
from mlx_smolvlm.media.video.probing import probe

TASKS = Path("/proc/self/task")
CLIP = str(video_path("clip"))


def frames(_):
    list(read_frames(probe(CLIP), [0, 5, 10]))


def broken_off_frames(_):
    reading = read_frames(probe(CLIP), [0, 5, 10])
    next(reading)
    reading.close()


def answer(demo):
    list(stream_generate(*demo, "x", videos=[CLIP], max_tokens=2))


def closed_answer(demo):
    steps = stream_generate(*demo, "x", videos=[CLIP], max_tokens=9)
    next(steps)
    steps.close()


def questions(demo):
    session = Session(*demo)
    list(session.ask("x", videos=[CLIP], max_tokens=2))
    list(session.edit("y", videos=[str(video_path("long"))], max_tokens=2))


def batch(demo):
    list(generate_batch(*demo, [BatchRequest("x", videos=[CLIP])] * 2, max_tokens=2))


def closed_captions(demo):
    captions = stream_captions(*demo, str(video_path("long")), "x", max_tokens=2, realtime=True, window_s=0.2)
    next(captions)
    captions.close()


@pytest.fixture
def uncollected():
    """The test runs without the garbage collector."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def counts():
    return len(os.listdir(TASKS)), threading.active_count(), len(os.listdir("/dev/fd"))


def assert_left(before):
    until_s = time.monotonic() + 10
    while any(now > then for now, then in zip(counts(), before, strict=True)) and time.monotonic() < until_s:
        time.sleep(0.02)
    assert all(now <= then for now, then in zip(counts(), before, strict=True)), (before, counts())


@pytest.mark.skipif(not TASKS.is_dir(), reason="counts OS threads in /proc")
@pytest.mark.parametrize(
    "use",
    [frames, broken_off_frames, answer, closed_answer, questions, batch, closed_captions],
    ids=lambda use: use.__name__,
)
def test_videos_leave_no_threads_to_the_collector(demo, uncollected, use):
    """Decoders' threads stayed, five for each video, until the collector came."""
    use(demo)
    before = counts()
    for _ in range(2):
        use(demo)
    assert_left(before)


@pytest.mark.skipif(not TASKS.is_dir(), reason="counts OS threads in /proc")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # one that came within a finalizer
@pytest.mark.parametrize("count", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_an_interrupted_answer_leaves_nothing(demo, count):
    """Ctrl-C within `next()`, wherever it comes."""
    answer(demo)
    held()
    before, chance = counts(), random.Random(10)
    for _ in range(count):
        timer = threading.Timer(chance.uniform(0, 0.06), _thread.interrupt_main)
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            while True:
                answer(demo)
        timer.join()
    held()
    assert_left(before)
