"""A cancel ends every kind of answer in every stage, soon, as "cancelled", and leaves nothing behind."""

import random
import socket
import threading
import time

import numpy as np
import pytest
from support.http_server import serving
from support.leftovers import held
from support.media import video_path

import mlx_smolvlm
from mlx_smolvlm import (
    BatchRequest,
    FetchPolicy,
    MediaOptions,
    PromptCache,
    Rows,
    Session,
    generate_batch,
    stream_captions,
    stream_generate,
)

DOWNLOAD_S = 5.0  # promised are 0.3 s, in steps of 0.05 s; the rest is for busy machines
LONGEST_S = 5.0  # within which a cancel ends the rest: one second is promised, what is left is for a busy machine
QUESTION = "What is this?"
PATIENT = MediaOptions(fetch_policy=FetchPolicy(timeout_s=60, stall_timeout_s=60, connect_timeout_s=60))


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield f"http://127.0.0.1:{running.server_address[1]}"


def streamed(demo, cancel, media):
    return [step.finish_reason for step in stream_generate(*demo, QUESTION, max_tokens=60, cancel=cancel, **media)][-1]


def asked(demo, cancel, media):
    session = Session(*demo)
    reason = [step.finish_reason for step in session.ask(QUESTION, max_tokens=60, cancel=cancel, **media)][-1]
    assert [turn.finish_reason for turn in session.turns] in ([reason], [])
    assert list(session.ask("And?", max_tokens=1))  # the session goes on
    return reason


def in_rows(demo, cancel, media):
    media_options = media.pop("media_options", None)
    with Rows(*demo) as rows:
        rows.add(BatchRequest(QUESTION, **media), media_options=media_options, cancel=cancel, max_tokens=60)
        while rows:
            events = rows.step()
        assert all(event.error is None for event in events), events
        return events[-1].finish_reason


def in_batch(demo, cancel, media):
    media_options = media.pop("media_options", None)
    requests = [BatchRequest(QUESTION, **media) for _ in range(3)]
    answers = list(generate_batch(*demo, requests, media_options=media_options, cancel=cancel, max_tokens=60))
    assert all(answer.error is None for answer in answers), answers
    return "stop" if len(answers) == 3 else "cancelled"


def captioned(demo, cancel, media):
    captions = stream_captions(*demo, str(video_path("long")), QUESTION, window_s=1, max_tokens=30, cancel=cancel)
    list(captions)
    return "cancelled" if cancel.is_set() else "stop"


WAYS = [streamed, asked, in_rows, in_batch, captioned]


def media(kind, server):
    large = np.random.default_rng(0).integers(0, 255, (1500, 2000, 3), dtype=np.uint8)
    return {
        "text": {},
        "image": {"images": [large]},
        "file": {"images": [str(mlx_smolvlm.DEMO_MODEL.parent / "picture.png")]},
        "video": {"videos": [str(video_path("clip"))]},
        "slow image": {"images": [f"{server}/slow/a.png"], "media_options": PATIENT},
        "slow header": {"videos": [f"{server}/slow_header/a.mp4"], "media_options": PATIENT},
    }[kind]


KINDS = ["text", "image", "file", "video", "slow image", "slow header"]


def after(delay_s, work):
    """The result of `work(event)`, and the seconds that it took after the event was set; 0 if it was quicker."""
    cancel, set_at = threading.Event(), []

    def set_event():
        set_at.append(time.monotonic())
        cancel.set()

    timer = threading.Timer(delay_s, set_event)
    timer.start()
    result = work(cancel)
    took_s = time.monotonic() - set_at[0] if set_at else 0.0
    timer.cancel()
    timer.join()
    return result, took_s


@pytest.mark.parametrize("count", [4, pytest.param(500, marks=pytest.mark.slow)])
def test_random_cancels_in_all_stages(demo, server, count):
    for way in WAYS:  # what is made once for all: streams, readers of formats
        way(demo, threading.Event(), media("file", server))
    before, chance, reasons = held(), random.Random(15), []
    for number in range(count):
        way, kind = WAYS[number % len(WAYS)], chance.choice(KINDS)
        is_slow = "slow" in kind and way is not captioned
        delay_s = chance.uniform(0, 0.25)
        reason, took_s = after(delay_s, lambda cancel, way=way, kind=kind: way(demo, cancel, media(kind, server)))
        reasons.append(reason)
        assert took_s < (DOWNLOAD_S if is_slow else LONGEST_S), (number, way.__name__, kind, delay_s)
        assert reason == "cancelled" if is_slow else reason in ("cancelled", "stop", "length"), (way.__name__, kind)
    assert reasons.count("cancelled") > count / 4
    settled(before)


def settled(before):
    """Nothing is left of threads and files, soon."""
    until_s = time.monotonic() + 10
    while held() != before and time.monotonic() < until_s:
        time.sleep(0.05)
    threads, tasks, files = held()
    assert (threads, files) == (before[0], before[2])
    assert tasks <= before[1]


@pytest.mark.parametrize("kind", ["images", "videos"])
def test_a_cancel_does_not_wait_for_a_name_to_be_looked_up(demo, monkeypatch, kind):
    """It cannot be given up by the system, so a thread is left to wait for it."""
    answered = threading.Event()

    def look_up(*_, **__):
        answered.wait(30)
        raise socket.gaierror("no such host")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    sources = {kind: ["http://slow.example/a"]}
    reason, took_s = after(0.2, lambda cancel: streamed(demo, cancel, sources))
    answered.set()
    assert (reason, took_s < DOWNLOAD_S) == ("cancelled", True)


def test_a_cancelled_download_leaves_the_prompt_cache_free(demo, server):
    cache = PromptCache()
    sources = {"images": [f"{server}/slow/a.png"], "prompt_cache": cache}
    assert after(0.1, lambda cancel: streamed(demo, cancel, sources))[0] == "cancelled"
    assert list(stream_generate(*demo, QUESTION, prompt_cache=cache, max_tokens=2))
