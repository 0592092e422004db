"""Transfers stay within their limits, and every failure is one line that gives no secret away."""

import base64
import socket
import subprocess
import sys
import time
from typing import Any

import pytest
from support.http_server import BODY, Server, serving

from mlx_smolvlm.media.fetch import (
    FetchError,
    FetchPolicy,
    fetch,
    refuse_private_addresses,
    stream,
)

QUICK = FetchPolicy(timeout_s=0.4, connect_timeout_s=0.4)


def one_line(caught: pytest.ExceptionInfo[Exception]) -> str:
    message = str(caught.value)
    assert message.isprintable() and len(message) < 400
    return message


@pytest.mark.parametrize("path", ["body", "chunked", "until_close", "moved"])
def test_every_framing_of_a_body_arrives_whole(url: str, path: str) -> None:
    assert fetch(f"{url}/{path}") == BODY


def test_stream_yields_bounded_chunks(url: str) -> None:
    chunks = list(stream(f"{url}/body"))
    assert len(chunks) >= 4 and max(map(len, chunks)) <= 64 * 1024 and b"".join(chunks) == BODY


def test_a_stream_left_early_closes_its_connection(url: str) -> None:
    chunks = stream(f"{url}/endless", FetchPolicy(max_bytes=10**12))
    assert next(chunks)
    chunks.close()  # an open socket left behind would be a ResourceWarning, an error in these tests


def test_the_request_is_well_formed(server: Server, url: str) -> None:
    fetch(f"{url}/body/déjà vu%20.png?q=a b&c=%26#part")
    path, headers = server.requests[0]
    assert path == "/body/d%C3%A9j%C3%A0%20vu%20.png?q=a%20b&c=%26"
    assert headers["Host"] == url.removeprefix("http://")
    assert headers["User-Agent"] == "mlx-smolvlm"  # some servers refuse requests without one
    assert headers["Accept-Encoding"] == "identity"
    assert "Authorization" not in headers


def test_a_location_header_keeps_the_bytes_of_its_path(server: Server, url: str) -> None:
    assert fetch(f"{url}/to_accents") == BODY
    assert server.requests[1][0] == "/body/d%C3%A9j%C3%A0%20vu"


def test_credentials_reach_their_own_host_only(server: Server, url: str) -> None:
    with serving() as other:
        other_url = f"http://127.0.0.1:{other.server_port}/body"
        server.plain_url = other_url
        fetch(url.replace("//", "//me:p%40ss@") + "/to_http")
        assert server.requests[0][1]["Authorization"] == "Basic " + base64.b64encode(b"me:p@ss").decode()
        assert "Authorization" not in other.requests[0][1]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("missing", "404 Not Found"),
        ("login", "401 Unauthorized"),
        ("odd_status", "answered 599;"),
        ("loop", "more than 5 redirects"),
        ("to_file", "only http and https"),
        ("huge", "larger than the limit of 67108864 bytes"),
        ("cut", "broke off after 1000 of 262144 bytes"),
        ("cut_chunk", "broke off"),
        ("gzip", "compressed"),
        ("garbage", "not valid HTTP"),
    ],
)
def test_a_bad_answer_is_named_in_one_line(url: str, path: str, expected: str) -> None:
    with pytest.raises(FetchError) as caught:
        fetch(f"{url}/{path}")
    assert one_line(caught).startswith(f"{url}/{path}") and expected in str(caught.value)


def test_an_endless_body_is_cut_at_the_size_limit(url: str) -> None:
    received = bytearray()
    with pytest.raises(FetchError, match="larger than the limit of 1000000 bytes"):
        for chunk in stream(f"{url}/endless", FetchPolicy(max_bytes=1_000_000)):
            received += chunk
    assert len(received) <= 1_000_000


def test_a_body_as_large_as_the_limit_passes(url: str) -> None:
    for path in ("body", "chunked"):
        assert fetch(f"{url}/{path}", FetchPolicy(max_bytes=len(BODY))) == BODY
        with pytest.raises(FetchError, match="limit"):
            fetch(f"{url}/{path}", FetchPolicy(max_bytes=len(BODY) - 1))


def test_a_server_that_falls_silent_is_given_up() -> None:
    start = time.monotonic()
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(FetchError, match=r"timed out.*0\.3 s without a byte"),
    ):
        fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/", FetchPolicy(stall_timeout_s=0.3))
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("path", ["slow", "slow_header"])
def test_a_trickle_is_cut_at_the_time_limit(url: str, path: str) -> None:
    start = time.monotonic()
    with pytest.raises(FetchError, match=r"timed out.*0\.4 s in all"):
        fetch(f"{url}/{path}", QUICK)
    assert time.monotonic() - start < 4  # the whole trickle takes 5 s


def test_a_consumer_that_pauses_cannot_stretch_the_time_limit(url: str) -> None:
    chunks = stream(f"{url}/endless", QUICK)
    next(chunks)
    time.sleep(0.5)
    with pytest.raises(FetchError, match="timed out"):
        next(chunks)


def test_a_host_that_accepts_but_never_answers_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for scheme in ("http", "https"):
            with pytest.raises(FetchError, match="timed out"):
                fetch(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/", QUICK)


def test_nobody_listening_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(FetchError, match="Connection refused"):
        fetch(f"http://127.0.0.1:{port}/")


def test_a_name_that_does_not_resolve_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(FetchError, match="Name or service not known"):
        fetch("http://nowhere.example/")


def test_redirects_can_be_forbidden(url: str) -> None:
    with pytest.raises(FetchError, match="more than 0 redirects"):
        fetch(f"{url}/moved", FetchPolicy(max_redirects=0))


def test_schemes_can_be_narrowed(url: str) -> None:
    with pytest.raises(FetchError, match="only https addresses"):
        fetch(f"{url}/body", FetchPolicy(schemes=("https",)))


@pytest.mark.parametrize(
    "bad", ["ftp://host/a", "http://", "http:///a", "http://a b/", "http://h:99999/", "http://.x/", "http://[::1/", ""]
)
def test_an_address_that_is_none_is_refused(bad: str) -> None:
    with pytest.raises(FetchError) as caught:
        fetch(bad)
    one_line(caught)


def test_messages_hide_credentials_and_queries(url: str) -> None:
    with pytest.raises(FetchError) as caught:
        fetch(url.replace("//", "//me:hidden@") + "/to_secret?token=hidden#hidden")
    assert "hidden" not in one_line(caught)
    assert f"{url}/to_secret (redirected to {url}/missing)" in str(caught.value)


def test_every_address_is_checked_before_connecting_redirects_included(url: str) -> None:
    checked: list[str] = []
    fetch(f"{url}/moved", FetchPolicy(check_address=checked.append))
    assert checked == ["127.0.0.1", "127.0.0.1"]


def test_private_addresses_are_refused_without_a_request(server: Server, url: str) -> None:
    with pytest.raises(FetchError, match=r"127\.0\.0\.1 is not an address of the public internet"):
        fetch(f"{url}/body", FetchPolicy(check_address=refuse_private_addresses))
    assert server.requests == []


def test_the_checked_address_is_the_one_connected_to(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: a second look-up could return another address than the one that was checked."""
    lookups: list[str] = []

    def resolve(host: str, port: int, **options: object) -> list[object]:
        lookups.append(host)
        address = "127.0.0.1" if len(lookups) == 1 else "127.0.0.2"
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    checked: list[str] = []
    policy = FetchPolicy(check_address=checked.append)
    assert fetch(f"http://pictures.example:{server.server_port}/body", policy) == BODY
    assert lookups == ["pictures.example"] and checked == ["127.0.0.1"]
    assert server.requests[0][1]["Host"] == f"pictures.example:{server.server_port}"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:10.0.0.1",
        "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:a00:1::", "2001:db8::1", "::10.0.0.1",
    ],
)  # fmt: skip
def test_non_public_ranges_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match="public internet"):
        refuse_private_addresses(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_public_addresses_pass(address: str) -> None:
    assert refuse_private_addresses(address) is None  # type: ignore[func-returns-value]  # it raises what it refuses


def test_proxies_of_the_environment_are_not_used(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert fetch(f"{url}/body") == BODY


@pytest.mark.parametrize(
    "options",
    [
        {"max_bytes": 0},
        {"timeout_s": float("nan")},
        {"timeout_s": float("inf")},
        {"max_redirects": -1},
        {"schemes": ("http", "file")},
    ],
)
def test_a_senseless_policy_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"FetchPolicy.{next(iter(options))}"):
        FetchPolicy(**options)


def test_importing_loads_no_network_stack() -> None:
    """A local picture should not pay for ssl and http.client."""
    heavy = {"ssl", "http.client", "mlx", "numpy"}
    code = f"import sys, mlx_smolvlm.media.fetch; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_trusted_hosts_are_exempt_from_the_checks_of_addresses_and_ports(url: str) -> None:
    trusting = FetchPolicy(check_address=refuse_private_addresses, trusted_hosts=("127.0.0.1",), ports=(80, 443))
    assert fetch(f"{url}/moved", trusting) == BODY
    elsewhere = url.replace("127.0.0.1", "localhost")
    for policy, reason in (
        (trusting, "port"),
        (FetchPolicy(check_address=refuse_private_addresses, trusted_hosts=("127.0.0.1",)), "public internet"),
        (FetchPolicy(ports=(80, 443)), "only 80 and 443"),
    ):
        with pytest.raises(FetchError, match=reason) as caught:
            fetch(f"{elsewhere}/body", policy)
        one_line(caught)
    for wrong in ({"ports": (0,)}, {"ports": 80}, {"trusted_hosts": "a"}):
        with pytest.raises(ValueError, match="FetchPolicy"):
            FetchPolicy(**wrong)  # type: ignore[arg-type]
