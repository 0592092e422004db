"""Hostile requests to the whole server: refused in the form of errors, never a 500, and no row ever begins."""

import gzip
import json
import shutil
import subprocess
import sys

import httpx
import pytest
from support.guarded_app import Client
from support.server import read_events, running_server

from mlx_smolvlm.server.app import create_app
from mlx_smolvlm.server.page import page_routes
from mlx_smolvlm.server.settings import MIB

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
JSON = {"content-type": "application/json"}


def num_begun(server) -> float:
    """How many prompts the model has begun with so far."""
    lines = server.http.get("/metrics").text.splitlines()
    return float(
        next(line.split()[-1] for line in lines if line.startswith("smolvlm:request_queue_time_seconds_count"))
    )


@pytest.fixture
def begins_nothing(server):
    before = num_begun(server)
    yield
    assert num_begun(server) == before and server.engine.is_idle


def endless():
    yield b'{"messages": [{"role": "user", "content": "'
    while True:
        yield b"x" * MIB


BODIES = {
    "empty": b"",
    "no JSON": b"messages=Hello",
    "byte order mark": b"\xef\xbb\xbf" + json.dumps(HELLO).encode(),
    "UTF-16": json.dumps(HELLO).encode("utf-16"),
    "UTF-32": json.dumps(HELLO).encode("utf-32-be"),
    "Latin-1": '{"messages": [{"role": "user", "content": "é"}]}'.encode("latin-1"),
    "deep": b'{"messages": ' + b"[" * 10_000,
    "deep and whole": b'{"metadata": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001,
    "key twice": b'{"messages": [], ' + json.dumps(HELLO).encode()[1:],
    "key twice, inside": b'{"messages": [{"role": "user", "role": "system", "content": "x"}]}',
    "lone surrogate": b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    "NaN": b'{"temperature": NaN, ' + json.dumps(HELLO).encode()[1:],
    "Infinity": b'{"temperature": Infinity, ' + json.dumps(HELLO).encode()[1:],
    "10 to the 400": b'{"max_tokens": 1' + b"0" * 400 + b', "messages": [{"role": "user", "content": "x"}]}',
    "1e400": b'{"seed": 1e400, ' + json.dumps(HELLO).encode()[1:],
    "a list": b"[" + json.dumps(HELLO).encode() + b"]",
    "many values": b'{"metadata": [' + b"0," * 200_000 + b"0]}",
    "1001 messages": json.dumps({"messages": HELLO["messages"] * 1001}).encode(),
}


@pytest.mark.parametrize("name", BODIES)
def test_hostile_bodies_are_refused(server, begins_nothing, name):
    response = server.http.post(CHAT, content=BODIES[name], headers=JSON)
    assert response.status_code == 400
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_encoded_bodies_and_forms_are_refused(server, begins_nothing):
    bomb = gzip.compress(b'{"a": "' + b"x" * (5 * MIB) + b'"}')
    assert server.http.post(CHAT, content=bomb, headers={**JSON, "content-encoding": "gzip"}).status_code == 415
    assert server.http.post(CHAT, data={"messages": "x"}).status_code == 415
    assert server.http.post(CHAT, content=json.dumps(HELLO), headers={"content-type": "text/plain"}).status_code == 415


def test_bodies_above_100_mib_are_refused(server, begins_nothing):
    with Client(httpx.URL(server.url).port) as client:
        answer = client.request(f"POST {CHAT}", "Content-Type: application/json", f"Content-Length: {101 * MIB}")
        assert (answer.status, answer.error["code"]) == (413, "request_too_large")


def test_bodies_without_end_are_refused(demo):
    with running_server(demo, max_body_bytes=MIB, body_timeout_s=0.5) as server:
        response = server.http.post(CHAT, content=endless(), headers=JSON)
        assert response.status_code == 413 and "larger than 1 MiB" in response.json()["error"]["message"]


def test_foreign_pages_begin_nothing(server, begins_nothing):
    port = httpx.URL(server.url).port
    for headers in ({"host": f"evil.test:{port}"}, {"host": "localhost"}, {"origin": "null"}, {"origin": "file://"}):
        assert server.http.post(CHAT, json=HELLO, headers=headers).status_code == 403
        assert (
            server.http.options(
                CHAT, headers={"access-control-request-method": "POST", "origin": "x:", **headers}
            ).status_code
            == 403
        )


def test_every_route_but_health_and_the_page_needs_the_key(demo):
    public = {"/health", *(route.path for route in page_routes())}
    with (
        running_server(demo, api_key="a-secret-key") as server,
        httpx.Client(base_url=server.url, trust_env=False) as http,
    ):
        for route in create_app().routes:
            for method in route.methods:
                path = route.path.replace("{id:path}", "smolvlm-demo")
                for headers in ({}, {"authorization": "Bearer wrong"}, {"x-api-key": "wrong"}):
                    response = http.request(method, path, params={"key": "a-secret-key"}, headers=headers)
                    assert response.status_code == (200 if path in public else 401), (method, path)
        for headers in ({"authorization": "bearer a-secret-key"}, {"x-api-key": "a-secret-key"}):
            assert http.post(CHAT, json=HELLO, headers=headers).status_code == 200
        assert "a-secret-key" not in http.get("/openapi.json", headers=headers).text


EXTREMES = [10**300, -(10**300), 1e300, 5e-324, 2**64, True, "", [None]]


@pytest.mark.parametrize(
    "name", ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "max_tokens", "n", "stop", "model"]
)
def test_extreme_values_never_fail_the_server(server, name):
    """An integer of more than 64 bits once ended a step of the engine, and the answers of others with it."""
    is_limit = name == "max_tokens"  # an answer of one token ends whatever the limit
    for value in EXTREMES:
        for more in [{"structured_outputs": {"regex": "a"}}] if is_limit else [{}, {"temperature": 1}]:
            response = server.http.post(CHAT, json={**HELLO, **more, name: value})
            assert response.status_code in (200, 400, 404), (value, response.text)
        option = {"max_tokens": "num_predict", "repetition_penalty": "repeat_penalty"}.get(name, name)
        asked = {"prompt": "x", "format": {"const": "a"} if is_limit else ""}
        response = server.http.post("/api/generate", json={**asked, "options": {"num_predict": 2, option: value}})
        assert response.status_code in (200, 400), (value, response.text)


MARKS = [
    "<image>",
    "<video>",
    "<end_of_utterance>",
    "<fake_token_around_image>",
    "<global-img>",
    "<|im_start|>",
    "<row_1_col_1>",
]


def test_marks_in_text_are_text(server):
    """A mark of an image in a conversation would otherwise block it for good."""
    for mark in MARKS:
        text = f"a {mark} b{mark}"
        messages = [
            {"role": "system", "content": text},
            {"role": "user", "content": text},
            {"role": "assistant", "content": text},
            {"role": "user", "content": [{"type": "text", "text": text}]},
        ]
        answer = server.chat(messages, max_tokens=3)
        assert answer["usage"]["prompt_tokens_details"]["image_tokens"] == 0
        body = {"messages": messages, "max_tokens": 3}
        streamed = read_events(server.http.post(CHAT, json={**body, "stream": True}).text)
        text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in streamed)
        assert text == answer["choices"][0]["message"]["content"]


@pytest.mark.slow
def test_schemathesis_finds_nothing(demo, tmp_path):
    """It tries every route with what the document allows, and with what it does not, for five minutes."""
    program = shutil.which("schemathesis") or shutil.which("schemathesis", path=str(sys.prefix) + "/bin")
    if program is None:
        pytest.skip("needs schemathesis: pip install schemathesis")
    config = tmp_path / "schemathesis.toml"
    config.write_text(
        "request-timeout = 60\n"
        "[checks.negative_data_rejection]\n"
        'expected-statuses = ["4xx", "503"]\n'
        "[checks.positive_data_acceptance]\n"  # a schema cannot tell a data URL of an image from one of nothing
        "enabled = false\n"
    )
    with running_server(demo, default_max_tokens=8) as server:
        command = [program, "--config-file", str(config), "run", f"{server.url}/openapi.json"]
        limits = ["--max-examples", "120", "--phases", "coverage,fuzzing", "--max-time", "300", "--continue-on-failure"]
        run = subprocess.run([*command, *limits], capture_output=True, text=True, cwd=tmp_path, timeout=550)
        assert run.returncode == 0, run.stdout[-10_000:]
        server.wait_idle()
