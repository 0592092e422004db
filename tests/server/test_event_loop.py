"""The event loop does nothing that takes long, whatever a request brings, so that streams and /health go on."""

import asyncio
import io
import time
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image
from support.server import ASKED, DEMO, data_url, image_part, question, running_server

LONGEST_S = 0.05  # of its thread's own time, which does not count what else the machine does


@contextmanager
def noted_callbacks(noted):
    """Within, all callbacks of event loops are noted as (seconds of the thread's time, what it was)."""
    run = asyncio.Handle._run

    def timed(handle):
        start = time.thread_time()
        try:
            return run(handle)
        finally:
            noted.append((time.thread_time() - start, repr(handle)[:300]))

    asyncio.Handle._run = timed
    try:
        yield
    finally:
        asyncio.Handle._run = run


@pytest.fixture(scope="module")
def large_server(demo):
    with running_server(demo, max_schema_bytes=2**27) as server:
        server.http.timeout = 120
        yield server


def part_for_urls(content):
    part = image_part(content)
    address = part["image_url"]
    start = address["url"].index(",")
    address["url"] = address["url"][:start] + address["url"][start:].replace("+", "-").replace("/", "_")
    return part


def bmp(megabytes):
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (megabytes * 256, 1365, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "BMP")
    return file.getvalue()


def long_schema(megabytes):
    schema = {"enum": ["a" * megabytes * 10**6, 1]}
    return {"response_format": {"type": "json_object", "schema": schema}}


REQUESTS = {
    "usual": lambda size: [
        (question("Hello"), {}),
        (question(ASKED, image_part(DEMO / "picture.png")), {"stream": True}),
        (question(ASKED, {"type": "video_url", "video_url": {"url": data_url(DEMO / "clip.mp4", "video/mp4")}}), {}),
    ],
    "image": lambda size: [(question(ASKED, part_for_urls(bmp(size))), {})],
    "text": lambda size: [(question("a word <image> " * (size * 10**6 // 15)), {})],
    "schema": lambda size: [(question("?"), long_schema(size))],
    "messages": lambda size: [([*question("a")] * 999, {"stop": ["a" * size * 10**6]})],
}


@pytest.mark.parametrize("size", [8, pytest.param(60, marks=pytest.mark.slow)])  # megabytes
@pytest.mark.parametrize("kind", REQUESTS)
def test_no_callback_takes_long(large_server, kind, size):
    """Less is allowed where bodies are smaller, as what took long did so in proportion."""
    for messages, fields in REQUESTS[kind](size):
        callbacks = []
        with noted_callbacks(callbacks):
            large_server.post(messages, max_tokens=4, **fields)
            large_server.wait_idle()
        assert max(callbacks)[0] < LONGEST_S * (1 if size > 8 else 0.4), max(callbacks)
