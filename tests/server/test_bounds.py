"""What a request may hold and how long it may take, whatever clients do."""

import asyncio
import io
import threading
import time

import pytest
from PIL import Image
from support.server import DEMO, image_part, question, running_server, until

from mlx_smolvlm import BatchRequest, GenerationOptions, generate_text, stream_generate
from mlx_smolvlm.media import leaving
from mlx_smolvlm.media.images import load_image
from mlx_smolvlm.server.http import strict_json
from mlx_smolvlm.server.intake.media_intake import Intake

PICTURE = DEMO / "picture.png"


def test_answers_cancelled_in_the_queue_leave_it_at_once(server):
    """They stayed, with their media, until a row was free."""

    async def ask_and_leave():
        jobs = [
            server.engine.submit(BatchRequest("Hello?"), GenerationOptions(max_tokens=500), lambda _: None)
            for _ in range(60)
        ]
        for job in jobs:
            server.engine.cancel(job)
        assert not server.engine._waiting

    asyncio.run(ask_and_leave())
    server.wait_idle()


def test_a_place_that_is_only_quoted_is_none(server):
    body = {"messages": [{"role": "messages[99].content[0]", "content": "x"}]}
    assert server.http.post("/api/chat", json=body).status_code == 400


def test_more_answers_than_there_are_places_are_refused_for_good(demo):
    with running_server(demo, rows=1, max_waiting=0) as server:
        refused = server.post("Hello?", n=2)
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "n"


def test_reading_media_counts_as_time_of_the_request(demo):
    file = io.BytesIO()
    Image.effect_noise((2500, 2500), 90).save(file, "PNG")
    parts = [image_part(file.getvalue()) for _ in range(3)]
    with running_server(demo, request_timeout_s=0.05) as server:
        late = server.post(question("What?", *parts))
    assert late.status_code == 504 and "retry-after" not in late.headers


@pytest.mark.parametrize("block", [2, 3, 7, 64])
def test_strings_with_escapes_end_where_they_do(monkeypatch, block):
    monkeypatch.setattr(strict_json, "BLOCK", block)
    for text in (b'{"a": "\\\\\\"x\\n"}', b'{"a\\\\": "\\"\\"\\""}', b'["\\u00e9\\/", "\\\\"]'):
        assert strict_json.parse(b'{"x": ' + text + b"}")


def test_counting_tokens_has_a_time_limit(demo):
    with running_server(demo, request_timeout_s=0.3) as server:
        prepare = server.engine.processor.prepare

        def slow(*arguments, check_cancelled, **options):
            for _ in range(200):
                check_cancelled()
                time.sleep(0.02)
            return prepare(*arguments, check_cancelled=check_cancelled, **options)

        server.engine.processor.prepare = slow
        try:
            response = server.post("Hello", path="/v1/chat/completions/input_tokens")
        finally:
            del server.engine.processor.prepare
        assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")
        server.wait_idle()


def test_decoders_that_nobody_waits_for_are_few(monkeypatch):
    """A cancelled decode goes on in its thread; the next ones have to wait for it."""
    running, most, lock = 0, 0, threading.Lock()
    let_go = threading.Event()
    content = io.BytesIO()
    Image.new("RGB", (2500, 2500)).save(content, "WEBP")
    load = Image.Image.load

    def slow(image):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        let_go.wait(60)
        with lock:
            running -= 1
        return load(image)

    monkeypatch.setattr("PIL.WebPImagePlugin.WebPImageFile.load", slow)

    class LeftError(Exception):
        pass

    def leave():
        if running:
            raise LeftError

    def ask():
        with pytest.raises(LeftError):
            load_image(content.getvalue(), check_cancelled=leave)

    for _ in range(6):
        ask()
    let_go.set()
    until(lambda: not running)
    assert 1 <= most <= 2
    until(lambda: not leaving.BUDGET.used)


def test_keys_and_values_may_be_quantized(demo):
    options = {"kv_bits": 4, "kv_group_size": 32}
    expected = [step.token_id for step in stream_generate(*demo, "Hello?", max_tokens=30, **options)]
    with running_server(demo, **options) as server:
        answer = server.chat("Hello?", max_tokens=30)
        assert answer["usage"]["completion_tokens"] == len(expected)
        assert answer["choices"][0]["message"]["content"] == generate_text(*demo, "Hello?", max_tokens=30, **options)
        tokens = answer["usage"]["total_tokens"]
        assert 0 < server.engine.gauges().prefix_bytes < 600 * tokens  # 384 of them are keys and values; plain, 2048


def test_a_thread_that_wants_to_end_the_program_does_not_end_the_server(server, monkeypatch):
    def ending(*_):
        raise SystemExit(3)

    monkeypatch.setattr(Intake, "_image", ending)
    failed = server.post(question("What?", image_part(PICTURE)))
    assert failed.status_code == 500 and failed.json()["error"]["code"] == "internal_error"
    monkeypatch.undo()
    monkeypatch.setattr("mlx_smolvlm.engine.rows.Rows.step", ending)
    failed = server.post("Hello?")
    assert failed.status_code == 500
    monkeypatch.undo()
    assert server.text("Hello?", max_tokens=2)
