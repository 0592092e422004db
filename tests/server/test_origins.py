"""Which names and pages the server answers to; nothing else reaches a handler."""

import pytest
from support.guarded_app import Client, serve

from mlx_smolvlm.server.errors import ApiError
from mlx_smolvlm.server.http.origins import HostCheck, OriginCheck

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


@pytest.mark.parametrize(
    ("host", "is_served"),
    [
        ("localhost:{port}", True),
        ("127.0.0.1:{port}", True),
        ("[::1]:{port}", True),
        ("LOCALHOST:{port}", True),  # names have no case
        ("my.host", True),
        ("My.Host:1", True),
        ("evil.test", False),
        ("evil.test:{port}", False),
        ("EVIL.TEST:{port}", False),
        ("localhost", False),  # port 80
        ("localhost:80", False),
        ("127.0.0.2:{port}", False),
        ("localhost.:{port}", False),
        ("localhost:{port}.evil.test", False),
        ("evil@localhost:{port}", False),
        ("localhost:{port}/", False),
        ("xlocalhost:{port}", False),
        ("my.host.evil", False),
        ("", False),
        (" ", False),
    ],
)
def test_only_the_servers_own_names_are_served(client, served, host, is_served):
    answer = client.request("GET /health", f"Host: {host.format(port=served[0])}", host=False)
    assert answer.status == 200 if is_served else refusal(answer) == (403, "host_not_allowed")


def test_a_missing_or_second_host_is_refused(client, served):
    client.send(b"GET /health HTTP/1.0\r\n\r\n")
    assert refusal(client.answer()) == (403, "host_not_allowed")
    for hosts in ([], [f"Host: localhost:{served[0]}", "Host: localhost"]):
        with Client(served[0]) as other:  # RFC 9112 wants 400 for these
            assert refusal(other.request("GET /health", *hosts, host=False)) == (400, "invalid_request")


@pytest.mark.parametrize("origin", ["null", "https://example.com", "http://localhost:{port}", "HTTPS://EXAMPLE.COM"])
def test_own_and_allowed_origins_are_served(client, served, origin):
    answer = client.request("POST /echo", JSON, f"Origin: {origin.format(port=served[0])}", body=b"{}")
    assert answer.status == 200
    is_own = "localhost" in origin
    assert answer.headers.get("access-control-allow-origin") == (None if is_own else origin.lower())


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.test",
        "file://",
        "http://localhost",
        "http://127.0.0.1:{port}",
        "http://localhost:{port}.evil.test",
        "https://example.com.evil.test",
        "https://example.com:444",
        "http://example.com",
        "",
        "null, null",
        "*",
    ],
)
def test_foreign_origins_reach_no_handler(client, served, origin):
    num_calls = len(served[1])
    answer = client.request("POST /echo", JSON, f"Origin: {origin.format(port=served[0])}", body=b"{}")
    assert refusal(answer) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in answer.headers
    with Client(served[0]) as other:
        preflight = other.request(
            "OPTIONS /echo", f"Origin: {origin.format(port=served[0])}", "Access-Control-Request-Method: POST"
        )
    assert preflight.status == 403
    assert len(served[1]) == num_calls


def test_two_origins_are_refused(client):
    assert client.request("POST /echo", JSON, "Origin: null", "Origin: null", body=b"{}").status == 403


def test_foreign_pages_cannot_read_what_they_get(client):
    answer = client.request("GET /models", "Origin: https://evil.test")
    assert answer.status == 200 and "access-control-allow-origin" not in answer.headers
    assert answer.headers["vary"] == "origin"


def test_a_preflight_grants_what_openais_client_sends(client):
    answer = client.request(
        "OPTIONS /echo",
        "Origin: https://example.com",
        "Access-Control-Request-Method: POST",
        "Access-Control-Request-Headers: Authorization,content-type, x-stainless-os,openai-beta,x-evil",
    )
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "https://example.com"
    assert answer.headers["access-control-allow-headers"] == "authorization, content-type, openai-beta, x-stainless-os"
    assert answer.headers["access-control-allow-methods"] == "get, post"
    assert "access-control-allow-credentials" not in answer.headers


def test_errors_can_be_read_by_allowed_origins(client):
    answer = client.request("GET /nothing", "Origin: null")
    assert refusal(answer) == (404, "not_found") and answer.headers["access-control-allow-origin"] == "null"


@pytest.mark.parametrize("entry", ["*", "example.com", "https://", "https://*", "https://example.com/path", "", "x y"])
def test_what_cannot_be_an_origin_is_refused_at_the_start(entry):
    with pytest.raises(ValueError, match="CORS origin"):
        OriginCheck([entry])


def test_schemes_of_apps_can_be_allowed_as_a_whole():
    check = OriginCheck(["vscode-webview://*", "app://obsidian.md"])
    assert [check.allows(origin) for origin in ("vscode-webview://1ab", "app://obsidian.md", "app://x", "null")] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("entry", ["*", "http://x", "a b", "*.example.com", "x/y"])
def test_what_cannot_be_a_host_is_refused_at_the_start(entry):
    with pytest.raises(ValueError, match="allowed host"):
        HostCheck("127.0.0.1", [entry])


def test_addresses_at_which_a_connection_arrives_are_names_of_the_server():
    """A name can be pointed anywhere by its owner, an address cannot."""
    check = HostCheck("0.0.0.0", [])
    check.check(["192.168.1.5:8080"], "http", ("192.168.1.5", 8080))
    check.check(["[fe80::1]:8080"], "http", ("fe80::1%eth0", 8080))
    for host in ("192.168.1.6:8080", "192.168.1.5", "printer.local:8080"):
        with pytest.raises(ApiError, match="Host header"):
            check.check([host], "http", ("192.168.1.5", 8080))
    HostCheck("mac.local", []).check(["Mac.local:8080"], "http", ("192.168.1.5", 8080))
