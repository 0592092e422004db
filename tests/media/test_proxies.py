"""Proxies of the environment are used for downloads, or the message says why not."""

import pytest
from support.http_server import BODY, Server
from support.proxy_server import proxying

from mlx_smolvlm.media.fetch import FetchError, FetchPolicy, fetch
from mlx_smolvlm.media.proxies import proxy_for

VARIABLES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_proxy_is_asked_for_the_whole_address(server: Server, monkeypatch, variable):
    """The name is the proxy's to look up, and a password goes to the proxy alone."""
    with proxying() as proxy:
        monkeypatch.setenv(variable, proxy.url.replace("http://", "http://me:a%20word@"))
        address = f"http://pictures.invalid:{server.server_port}/body"
        assert fetch(address) == BODY
        assert proxy.asked == [("GET", address, "Basic bWU6YSB3b3Jk")]
    assert "Proxy-Authorization" not in server.requests[0][1]


def test_limits_hold_behind_a_proxy(server: Server, monkeypatch):
    with proxying() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        with pytest.raises(FetchError, match="larger than the limit of 1000 bytes"):
            fetch(f"http://pictures.invalid:{server.server_port}/body", FetchPolicy(max_bytes=1000))


def test_checked_addresses_need_a_direct_connection_and_an_error_says_so(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    policy = FetchPolicy(check_address=lambda address: None)
    with pytest.raises(FetchError, match=r"the proxy of http_proxy \(http://127.0.0.1:9\) was not used, since"):
        fetch("http://pictures.invalid/a.png", policy)


@pytest.mark.parametrize("value", ["http://[::1", "http://proxy:port"])
def test_a_malformed_proxy_is_named(monkeypatch, value):
    monkeypatch.setenv("http_proxy", value)
    with pytest.raises(FetchError, match=r"the proxy of http_proxy is no valid address; expected http://host:port"):
        fetch("http://pictures.invalid/a.png")


@pytest.mark.parametrize("value", ["socks5://127.0.0.1:1080", "ftp://x", "http://"])
def test_other_proxies_are_refused_by_name(monkeypatch, value):
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(FetchError, match=r"the proxy of ALL_PROXY .* is not supported, expected http://host:port"):
        fetch("http://pictures.invalid/a.png")


@pytest.mark.parametrize(
    ("exceptions", "is_direct"),
    [
        *(("*", True), ("example", True), (".example", True), ("*.example", True), ("a.example:80", True)),
        *(("other, a.example", True), ("", False), ("b.example", False), ("ample", False)),
    ],
)
def test_no_proxy_names_hosts_and_domains(monkeypatch, exceptions, is_direct):
    monkeypatch.setenv("http_proxy", "proxy.invalid:3128")
    monkeypatch.setenv("no_proxy", exceptions)
    proxy = proxy_for("http", "a.example", 80)
    assert (proxy is None) == is_direct
    assert proxy is None or (proxy.host, proxy.port) == ("proxy.invalid", 3128)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_this_machine_is_no_proxys_business(monkeypatch, host):
    monkeypatch.setenv("all_proxy", "http://proxy.invalid:3128")
    assert proxy_for("http", host, 80) is None


def test_a_proxy_that_is_gone_is_named_by_its_variable(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(FetchError, match="the proxy of http_proxy"):
        fetch("http://pictures.invalid/a.png")
