"""Certificates are checked for the name that was asked for, and https stays https."""

import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.http_server import BODY, Server, serving
from support.proxy_server import proxying

from mlx_smolvlm.media.fetch import (
    FetchError,
    fetch,
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for the name pictures.example."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    (folder / "request.cnf").write_text(
        "[req]\ndistinguished_name=name\nx509_extensions=extensions\nprompt=no\n"
        "[name]\nCN=pictures.example\n[extensions]\nsubjectAltName=DNS:pictures.example\n"
    )
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-config", str(folder / "request.cnf"), "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return key, cert


@pytest.fixture
def tls_server(certificate: tuple[Path, Path]) -> Iterator[Server]:
    key, cert = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with serving(lambda plain: context.wrap_socket(plain, server_side=True)) as running:
        yield running


@pytest.fixture
def trusted(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the test's certificate, and send every name to this machine."""
    create, resolve = ssl.create_default_context, socket.getaddrinfo
    monkeypatch.setattr(ssl, "create_default_context", lambda: create(cafile=str(certificate[1])))
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, **rest: resolve("127.0.0.1", port, **rest))


def test_an_untrusted_certificate_is_refused(tls_server: Server) -> None:
    with pytest.raises(FetchError, match=r"certificate cannot be trusted .*self.signed"):
        fetch(f"https://127.0.0.1:{tls_server.server_port}/body")


@pytest.mark.usefixtures("trusted")
def test_a_certificate_is_checked_for_the_name_not_the_address(tls_server: Server) -> None:
    assert fetch(f"https://pictures.example:{tls_server.server_port}/body") == BODY
    with pytest.raises(FetchError, match="certificate cannot be trusted"):
        fetch(f"https://other.example:{tls_server.server_port}/body")


@pytest.mark.usefixtures("trusted")
def test_https_never_turns_into_http(tls_server: Server, server: Server) -> None:
    tls_server.plain_url = f"http://pictures.example:{server.server_port}/body"
    with pytest.raises(FetchError, match="https may not turn into http"):
        fetch(f"https://pictures.example:{tls_server.server_port}/to_http")
    assert server.requests == []


@pytest.mark.usefixtures("trusted")
def test_a_proxy_of_the_environment_passes_tls_through(tls_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    target = f"pictures.example:{tls_server.server_port}"
    with proxying() as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        assert fetch(f"https://{target}/body") == BODY
        assert proxy.asked == [("CONNECT", target, None)]
        with pytest.raises(FetchError, match="certificate cannot be trusted"):
            fetch(f"https://other.example:{tls_server.server_port}/body")
        proxy.refuses = True
        with pytest.raises(FetchError, match=r"the proxy of https_proxy \(http://127.0.0.1:\d+\) answered 403"):
            fetch(f"https://{target}/body")
