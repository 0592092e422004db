"""What URLs are called in messages, and what data URLs hold."""

import base64

import pytest

from mlx_smolvlm.media.urls import decode_data_url, redact_url


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("https://me:secret@host:8443/a.png?sig=secret#secret", "https://host:8443/a.png"),
        ("https://me:secret/more@host/a.png", "web address that cannot be read"),
        ("https://me:secret?more@host/a.png", "web address that cannot be read"),
        ("https://host/\x1b[31m\u2028a", "https://host/\\x1b[31m\\u2028a"),
        ("data:image/png;base64,QUJD", "data:image/png;base64,... (26 characters)"),
    ],
)
def test_redacted_addresses_show_host_and_path_only(raw: str, shown: str) -> None:
    assert redact_url(raw) == shown


@pytest.mark.parametrize(
    ("url", "content"),
    [
        ("data:image/png;base64,AP+/", b"\x00\xff\xbf"),
        ("DATA:image/png;BASE64,AP%2B%2F", b"\x00\xff\xbf"),
        ("data:;base64,QUI=", b"AB"),
        ("data:;base64,QUI", b"AB"),  # browsers accept missing padding
        ("data:;base64,QU\n JD", b"ABC"),
        ("data:,a%20b%00+", b"a b\x00+"),
        ("data:text/plain;charset=utf-8,", b""),
    ],
)
def test_data_urls_decode(url: str, content: bytes) -> None:
    assert decode_data_url(url) == content


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("data:image/png;base64", "not a data URL"),
        ("http://host/a,b", "not a data URL"),
        ("data:;base64,QUJ*", "not valid base64"),
        ("data:;base64,QUJDR", "not valid base64"),
        ("data:;base64,QU=JD", "not valid base64"),
        ("data:;base64,Q_-D", "not valid base64"),
        ("data:,%4", "%XX"),
        ("data:,%zz", "%XX"),
        ("data:,é", "ASCII"),
    ],
)
def test_malformed_data_urls_are_refused(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        decode_data_url(url)
    assert str(caught.value).isprintable()


def test_data_urls_obey_the_size_limit() -> None:
    encoded = base64.b64encode(bytes(100)).decode()
    for url in (f"data:;base64,{encoded}", "data:," + "x" * 100):
        assert len(decode_data_url(url, max_bytes=100)) == 100
        with pytest.raises(ValueError, match="limit of 99 bytes") as caught:
            decode_data_url(url, max_bytes=99)
        assert encoded not in str(caught.value)


def test_data_urls_are_decoded_in_blocks_that_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call for all of it would hold up every other thread, and with them a server."""
    monkeypatch.setattr("mlx_smolvlm.media.urls.BLOCK_BYTES", 8)
    for size in range(30):
        content = bytes(range(size))
        text = base64.b64encode(content).decode()
        for written in (text, text.rstrip("="), "\n".join(text), f" {text[:9]}\t{text[9:]}"):
            assert decode_data_url(f"data:;base64,{written}") == content
    for text in ("AA==AAAAAAAA", "AAAAAAA=AAAA", "AAAAAAAAA", "AAAAAAAA.AAA"):
        with pytest.raises(ValueError, match="not valid base64"):
            decode_data_url(f"data:;base64,{text}")
    checks: list[None] = []
    decode_data_url(f"data:;base64,{'A' * 64}", check_cancelled=lambda: checks.append(None))
    assert len(checks) >= 16
