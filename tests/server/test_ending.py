"""Answers end when their client leaves, in any stage, streamed or not; nothing of them stays behind."""

import gc
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from support.leftovers import held, threads_beside_pools
from support.server import DEMO, image_part, question, running_server, until

LONG = {"messages": [{"role": "user", "content": "Count"}], "max_tokens": 1500, "temperature": 1.5, "seed": 1}
LONG["structured_outputs"] = {"regex": "[a-z ]{1000}"}  # goes on for a while


def connected(server, body, path="/v1/chat/completions", sent=1.0):
    """A socket on which a part of a request was sent."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.url.rpartition(':')[2]}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=20)
    connection.sendall((head.encode() + data)[: int((len(head) + len(data)) * sent)])
    return connection


def is_quiet(server):
    return server.engine.is_idle and not server.engine.num_waiting and not server.engine.num_running


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_answer(server, stream):
    expected = server.text("Hello", max_tokens=5)
    for wait_s in (0.0, 0.02, 0.3):  # as the request arrives, while its prompt is planned and read, and in the answer
        with connected(server, {**LONG, "stream": stream}):
            if wait_s:
                until(lambda: not is_quiet(server))
            time.sleep(wait_s)
        until(lambda: is_quiet(server))
    assert server.text("Hello", max_tokens=5) == expected


def test_a_client_that_leaves_while_it_sends_begins_nothing(server):
    with connected(server, LONG, sent=0.9):
        time.sleep(0.05)
        assert is_quiet(server)
    assert server.text("Hello", max_tokens=3)


def test_others_are_not_disturbed(server):
    messages = question("What do you see?", image_part(DEMO / "picture.png"))
    expected = server.text(messages, max_tokens=40)
    leaving = [connected(server, {**LONG, "stream": number % 2 == 0}) for number in range(4)]
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(server.text, messages, max_tokens=40) for _ in range(6)]
        for connection in leaving:
            time.sleep(0.02)
            connection.close()
        assert [answer.result() for answer in answers] == [expected] * 6
    until(lambda: is_quiet(server))


def test_leaving_in_the_queue_and_in_fetching_gives_back_the_place(demo, http_silence):
    with running_server(demo, rows=1, max_waiting=2, fetch_hosts=["127.0.0.1"]) as server:
        running = connected(server, LONG)
        until(lambda: server.engine.num_running == 1)
        waiting = connected(server, {**LONG, "stream": True})
        fetching = connected(
            server, {"messages": question("x", {"type": "image_url", "image_url": {"url": http_silence}})}
        )
        until(lambda: server.engine.num_waiting == 2)
        assert server.post("Hello").status_code == 503
        for connection in (waiting, fetching, running):
            connection.close()
        until(lambda: is_quiet(server))
        assert server.text("Hello", max_tokens=3)


@pytest.fixture
def http_silence():
    """An address at which a server accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/x.png"


def test_a_prompt_that_is_read_alone_ends_within_a_unit(server, demo):
    before = server.http.get("/metrics").text
    long_prompt = {"messages": [{"role": "user", "content": "a " * 600}], "max_tokens": 500, "stream": True}
    for _ in range(5):
        with connected(server, long_prompt):
            until(lambda: server.engine.num_running == 1)
        until(lambda: is_quiet(server))
    count = 'finished_reason="cancelled"} '
    cancelled = [int(text.partition(count)[2].split("\n")[0]) for text in (before, server.http.get("/metrics").text)]
    assert cancelled[1] > cancelled[0]


def test_nothing_is_left_behind(server):
    def leave(number):
        with connected(server, {**LONG, "stream": number % 2 == 0}):
            time.sleep(0.002 * (number % 10))

    for number in range(5):
        leave(number)
    until(lambda: is_quiet(server))
    gc.collect()
    before, files = threads_beside_pools(), held()[2]
    for number in range(20):
        leave(number)
    until(lambda: is_quiet(server))
    until(lambda: len(held()[2]) <= len(files) and threads_beside_pools() <= before, 5)


@pytest.mark.parametrize(
    ("rows", "waiting", "requests"), [(2, 6, 12), pytest.param(8, 64, 100, marks=pytest.mark.slow)]
)
def test_requests_at_once_are_answered_or_refused(demo, rows, waiting, requests):
    body = {"messages": [{"role": "user", "content": "Count"}], "max_tokens": 30}
    with running_server(demo, rows=rows, max_waiting=waiting) as server:
        busy = [connected(server, LONG) for _ in range(rows)]
        until(lambda: server.engine.num_running == rows)
        connections = [connected(server, body) for _ in range(requests - rows)]
        refused = [read_all(connection) for connection in take_answered(connections, requests - rows - waiting)]
        assert len(refused) == requests - rows - waiting
        assert all(b" 503 " in text.split(b"\r\n")[0] and b"retry-after: 2" in text.lower() for text in refused)
        for connection in busy:
            connection.close()
        answered = [read_all(connection) for connection in connections if connection.fileno() >= 0]
        assert len(answered) == waiting and all(b" 200 " in text.split(b"\r\n")[0] for text in answered)
        until(lambda: is_quiet(server))


def take_answered(connections, count):
    """The connections on which something has come, as soon as there are so many of them."""
    import select

    end_s = time.monotonic() + 10
    while time.monotonic() < end_s:
        ready = select.select(connections, [], [], 0.1)[0]
        if len(ready) >= count:
            time.sleep(0.2)
            return select.select(connections, [], [], 0)[0]
    return []


def read_all(connection) -> bytes:
    """One response."""
    text = b""
    with connection:
        while b"\r\n\r\n" not in text:
            text += connection.recv(65536)
        head, _, body = text.partition(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
        )
        while len(body) < length:
            body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def test_answers_that_take_too_long_end_with_an_error(demo):
    with running_server(demo, request_timeout_s=0.8) as server:
        late = server.http.post("/v1/chat/completions", json=LONG)
        assert late.status_code == 504 and late.headers["x-should-retry"] == "false"
        streamed = server.http.post("/v1/chat/completions", json={**LONG, "stream": True}).text
        assert '"code":"timeout"' in streamed and "[DONE]" not in streamed
        until(lambda: is_quiet(server))


def test_requests_that_wait_too_long_are_told_to_try_again(demo):
    with running_server(demo, rows=1) as server:
        step = server.engine._rows.step
        server.engine._rows.step = lambda: (time.sleep(0.05), step())[1]
        with connected(server, LONG):
            until(lambda: server.engine.num_running == 1)
            server.engine.settings = replace(server.engine.settings, queue_timeout_s=0.2)
            waited = server.post("Hello", max_tokens=2)
            assert waited.status_code == 503 and waited.json()["error"]["code"] == "server_busy"
        until(lambda: is_quiet(server))


def test_silence_is_filled_with_comments(demo):
    with running_server(demo, keep_alive_s=0.05, rows=1) as server:
        step = server.engine._rows.step

        def slow_step():
            time.sleep(0.12)
            return step()

        server.engine._rows.step = slow_step
        text = server.http.post(
            "/v1/chat/completions", json={**LONG, "max_tokens": 3, "stream": True, "structured_outputs": None}
        ).text
        assert ": keep-alive\n\n" in text and text.endswith("data: [DONE]\n\n")


def test_a_request_that_was_let_in_before_the_engine_ended_is_told_so(demo):
    """It waited for a place in the queue that nobody looked into."""

    def end():
        raise SystemExit

    with running_server(demo) as server:
        server.engine._refill = end
        until(lambda: server.engine.state == "dead")
        server.engine.check_ready = lambda: None  # as a moment before
        late = server.post("Hello")
        assert (late.status_code, late.json()["error"]["code"]) == (503, "engine_dead")


def test_a_step_that_fails_ends_its_answers_and_no_others(demo):
    with running_server(demo) as server:
        step, failures = server.engine._rows.step, iter([True])

        def failing_step():
            if next(failures, False):
                raise RuntimeError("out of memory")
            return step()

        server.engine._rows.step = failing_step
        failed = server.post("Hello", max_tokens=3)
        assert failed.status_code == 500 and failed.headers["x-should-retry"] == "false"
        assert failed.json()["error"]["code"] == "internal_error" and "memory" not in failed.text
        assert server.text("Hello", max_tokens=3)
        assert server.http.get("/health").json() == {"status": "ok"}


def test_while_the_model_loads_requests_are_told_to_wait(demo):
    go_on = threading.Event()

    def load():
        go_on.wait(20)
        return demo

    with running_server(load) as server:
        health = server.http.get("/health")
        assert health.status_code == 503 and health.json() == {"status": "loading"}
        early = server.post("Hello", max_tokens=2)
        assert early.status_code == 503 and early.headers["retry-after"] == "2"
        assert server.http.get("/v1/models").json()["data"][0]["id"] == "smolvlm-demo"
        assert server.http.get("/metrics").status_code == 200
        go_on.set()
        until(lambda: server.http.get("/health").status_code == 200)
        assert server.text("Hello", max_tokens=2)


def test_an_engine_that_has_ended_is_told(demo):
    with running_server(lambda: (_ for _ in ()).throw(ValueError("damaged"))) as server:
        until(server.engine.ready.is_set)
        assert server.http.get("/health").status_code == 503
        dead = server.post("Hello")
        assert dead.status_code == 503 and dead.json()["error"]["code"] == "engine_dead"
