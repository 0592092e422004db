import asyncio
import contextlib
import gzip
import json
import logging
import time

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from support.guarded_app import Client, guarded_app, serve

from mlx_smolvlm.server.settings import ServerSettings

JSON = "Content-Type: application/json"


@pytest.fixture(scope="module")
def served():
    with serve(max_body_bytes=1 << 20, cors_origins=["null", "https://Example.com/"], allowed_hosts=["my.host"]) as it:
        yield it


@pytest.fixture
def client(served):
    with Client(served[0]) as client:
        yield client


def refusal(answer):
    return answer.status, answer.error["code"]


KEYED = [
    ([], False),
    (["Authorization: Bearer sécret"], False),
    (["Authorization: Bearer secre"], False),
    (["Authorization: Bearer secrett"], False),
    (["Authorization: secret"], False),
    (["Authorization: Basic secret"], False),
    (["Authorization: Bearer"], False),
    (["X-Api-Key: Secret"], False),
    (["X-Api-Key:"], False),
    (["Cookie: key=secret"], False),
    (["Authorization: Bearer secret"], True),
    (["Authorization: bearer secret"], True),
    (["X-Api-Key: secret"], True),
    (["Authorization: Bearer none", "X-Api-Key: secret"], True),
]


def test_the_key_opens_every_route_but_health(caplog):
    caplog.set_level(logging.DEBUG)
    with serve(api_key="secret") as (port, calls), Client(port) as client:
        for headers, is_right in KEYED:
            for line in ("GET /models", "GET /nothing", "OPTIONS /models", "GET /models?key=secret&api_key=secret"):
                answer = client.request(line, *headers)
                if is_right:
                    assert answer.status in (200, 404, 405), (headers, line)
                else:
                    assert refusal(answer) == (401, "invalid_api_key"), (headers, line)
                    assert answer.headers["www-authenticate"] == "bearer"
            assert client.request("GET /health", *headers).status == 200
            assert client.request("HEAD /health", *headers).status == 200
        assert client.request("POST /health", JSON, body=b"{}").status == 401
        assert calls == []
    assert "secret" not in caplog.text and "GET /models ->" in caplog.text


def test_unknown_paths_and_methods_are_refused_in_the_form_of_errors(client):
    answer = client.request("GET /nothing/%0a%1b[31m")
    assert answer.error == {
        "message": "there is no '/nothing/\\n\\x1b[31m' here; /openapi.json lists what there is",
        "type": "not_found_error",
        "param": None,
        "code": "not_found",
    }
    for line, allow in (("PUT /models", "GET, HEAD, POST"), ("GET /echo", "POST"), ("BREW /health", "GET, HEAD")):
        answer = client.request(line)
        assert refusal(answer) == (405, "method_not_allowed")
        assert answer.headers["allow"] == allow.lower()
    assert client.request("GET /models/").status == 404  # no redirect, which would name a host
    assert client.request("OPTIONS *").status == 404
    assert client.request("GET http://evil.test/health").status == 404


def test_heads_are_answered_like_gets_without_a_body(client):
    answer = client.request("HEAD /health")
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "15", b"")
    assert client.request("GET /health").status == 200


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("Application/JSON ; charset=UTF-8", 200),
        ('application/json;charset="utf8"', 200),
        ("application/json; charset=latin-1", 415),
        ("text/plain", 415),  # what forms of web pages can send without being asked
        ("multipart/form-data; boundary=x", 415),
        ("application/x-www-form-urlencoded", 415),
        ("text/plain; application/json", 415),
        ("application/jsonx", 415),
        ("", 415),
    ],
)
def test_bodies_are_declared_as_json(client, content_type, status):
    answer = client.request("POST /echo", f"Content-Type: {content_type}", body=b'{"a": 1}')
    assert answer.status == status
    assert json.loads(answer.body) == {"a": 1} if status == 200 else answer.error["code"] == "unsupported_content_type"


def test_encoded_bodies_are_refused(client, served):
    body = gzip.compress(b'{"a": "' + b"x" * 10_000_000 + b'"}')
    for headers in (["Content-Encoding: gzip"], ["Content-Encoding: identity, br"]):
        with Client(served[0]) as other:
            answer = other.request("POST /echo", JSON, *headers, body=body)
            assert refusal(answer) == (415, "unsupported_content_encoding")
            assert answer.headers["accept-encoding"] == "identity"
    assert client.request("POST /echo", JSON, "Content-Encoding: identity", body=b"{}").status == 200


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(client):
    client.send(
        f"POST /echo HTTP/1.1\r\nHost: localhost:{client.port}\r\n{JSON}\r\nContent-Length: {2 << 20}\r\n"
        "Expect: 100-continue\r\n\r\n".encode()
    )
    answer = client.answer()
    assert refusal(answer) == (413, "request_too_large") and "1 MiB" in answer.error["message"]
    assert client.seconds_until_closed() < 5


def test_a_client_that_sends_it_all_first_still_reads_why_it_is_refused(served):
    """The connection is not reset while the client is sending."""
    for headers in (
        [f"Content-Length: {30 << 20}"],
        ["Transfer-Encoding: chunked"],
        ["Content-Length: 9", "Origin: x:"],
    ):
        with Client(served[0]) as client:
            client.send(
                "\r\n".join([f"POST /echo HTTP/1.1\r\nHost: localhost:{client.port}", JSON, *headers, "", ""]).encode()
            )
            if "chunked" in headers[0]:
                for _ in range(30):
                    client.send(b"100000\r\n" + b"x" * (1 << 20) + b"\r\n")
                client.send(b"0\r\n\r\n")
            elif "9" in headers[0]:
                time.sleep(0.1)
                client.send(b'{"a": 10}')
            else:
                client.send(b"x" * (30 << 20))
            assert client.answer().status == (403 if "9" in headers[0] else 413)
            assert client.seconds_until_closed() < 5


def test_a_slow_client_is_not_cut_off_while_it_sends():
    """Its body is refused at once, but takes longer than an idle connection may."""
    with serve(max_body_bytes=1000, idle_timeout_s=1.5) as (port, _), Client(port) as client:
        client.send(f"POST /echo HTTP/1.1\r\nHost: localhost:{port}\r\n{JSON}\r\nContent-Length: 8000\r\n\r\n".encode())
        for _ in range(8):
            time.sleep(0.25)
            client.send(b"x" * 1000)
        assert client.answer().status == 413 and client.seconds_until_closed() < 5


def test_all_bodies_together_are_bounded_but_for_small_ones():
    size = 3 << 19
    with serve(max_held_bytes=2 * size + 65536) as (port, _), contextlib.ExitStack() as stack:
        start = f"POST /echo HTTP/1.1\r\nHost: localhost:{port}\r\n{JSON}\r\n"
        for pause_s in (0.2, 2, 10):  # a busy server may not have read the others before the late one
            held = [stack.enter_context(Client(port)) for _ in range(2)]
            for client in held:  # which the server waits for the end of
                client.send(f"{start}Content-Length: {size + 10}\r\n\r\n".encode() + b'{"a": "' + b"x" * size)
            time.sleep(pause_s)
            with Client(port) as client:
                answer = client.request("POST /echo", JSON, body=b'{"a": "' + b"x" * size + b'"}')
            if answer.status != 200:
                break
            for client in held:
                client.close()
        assert refusal(answer) == (503, "server_busy") and answer.headers["retry-after"] == "2"
        with Client(port) as client:
            assert client.request("POST /echo", JSON, body=b'{"a": 1}').status == 200
        for client in held:
            client.send(b'1"}')
            assert client.answer().status == 200
        with Client(port) as client:
            assert client.request("POST /echo", JSON, body=b'{"a": "' + b"x" * size + b'"}').status == 200


def test_an_app_that_mounts_the_server_has_the_same_guards():
    inner = guarded_app(ServerSettings(api_key="secret"))
    app = Starlette(routes=[Mount("/inner", inner)])

    async def ask():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8080") as client:
            return [
                await client.get("/inner/health"),
                await client.get("/inner/models"),
                await client.get("/inner/models", headers={"x-api-key": "secret"}),
                await client.get("/inner/nothing", headers={"x-api-key": "secret"}),
                await client.get("/inner/api/nothing", headers={"x-api-key": "secret"}),
                await client.post("/inner/echo", headers={"x-api-key": "secret"}, json={"a": 1}),
                await client.get("/inner/health", headers={"host": "evil.test"}),
            ]

    answers = asyncio.run(ask())
    assert [answer.status_code for answer in answers] == [200, 401, 200, 404, 404, 200, 403]
    assert isinstance(answers[3].json()["error"], dict) and isinstance(answers[4].json()["error"], str)


def test_lengths_that_lie_reach_no_second_request(client, served):
    num_calls = len(served[1])
    start = f"POST /echo HTTP/1.1\r\nHost: localhost:{client.port}\r\n{JSON}\r\n"
    for headers in ("Content-Length: 2\r\nContent-Length: 3", "Content-Length: -1", "Content-Length: 2x"):
        with Client(served[0]) as other:
            other.send(f"{start}{headers}\r\n\r\n{{}}".encode())
            assert refusal(other.answer()) == (400, "invalid_request")
    with Client(served[0]) as other:
        other.send(f"{start}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode())
        assert refusal(other.answer()) == (400, "invalid_header")
    assert len(served[1]) == num_calls
    client.send(f"{start}Content-Length: 2\r\n\r\n{{}}GARBAGE\r\n\r\n".encode())
    assert client.answer().status == 200
    assert refusal(client.answer()) == (400, "invalid_request")


def test_a_bug_is_logged_once_and_told_without_details(client, caplog):
    answer = client.request("GET /fail", "X-Request-Id: mine-1")
    assert refusal(answer) == (500, "internal_error") and answer.error["type"] == "server_error"
    assert answer.headers["x-should-retry"] == "false" and "bug" not in answer.body.decode()
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in errors] == ["mine-1 failed"] and errors[0].exc_info
    assert client.request("GET /health").status == 200


def test_a_stream_that_fails_is_cut_so_that_the_client_can_tell(client, caplog):
    client.send(f"GET /pour?fail HTTP/1.1\r\nHost: localhost:{client.port}\r\n\r\n".encode())
    data = b""
    while part := client.socket.recv(1 << 20):
        data += part
    assert data.count(b"x") >= 2 * 65536 and not data.endswith(b"0\r\n\r\n")
    assert sum(record.exc_info is not None for record in caplog.records) == 1


def test_every_answer_has_an_id_and_is_safe_to_show(client):
    ids = [client.request("GET /models", *headers).headers["x-request-id"] for headers in ([], [])]
    assert len(set(ids)) == 2 and all(len(name) == 36 for name in ids)
    assert client.request("GET /models", "X-Request-Id: ABC_1").headers["x-request-id"] == "abc_1"
    answer = client.request("GET /nothing", "X-Request-Id: a b")
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "server" not in answer.headers
