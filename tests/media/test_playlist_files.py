"""HLS over the network: what a playlist names is fetched by the rules of all media addresses.

FFmpeg's own connections followed redirects from https to http, more of them than are allowed, and trusted any
certificate.
"""

import logging
from threading import Event

import av
import pytest
from support.live_servers import serving, transport_stream
from support.reading import Reading

from mlx_smolvlm import FetchPolicy
from mlx_smolvlm.media.connections import Patience
from mlx_smolvlm.media.live.playlist_files import PlaylistFiles
from mlx_smolvlm.media.urls import FetchError
from mlx_smolvlm.options import DEFAULT_POLICY

STREAM = transport_stream(1)  # 10 frames
HALF = len(STREAM) // 188 // 2 * 188
KEY = "sixteen letters."


def playlist(*segments):
    named = "".join(f"#EXTINF:1,\n{segment}\n" for segment in segments)
    return f"#EXTM3U\n#EXT-X-VERSION:4\n#EXT-X-TARGETDURATION:1\n{named}#EXT-X-ENDLIST\n".encode()


def served(routes, asked):
    """Answers by path: content, or an address that it is found at; `asked` gets paths, with ranges."""

    def answer(connection):
        request = connection.recv(65536).decode()
        path = request.split()[1]
        lines = {name.lower(): value for name, _, value in (line.partition(": ") for line in request.splitlines())}
        asked.append(path + lines.get("range", ""))
        found, status, headers = routes.get(path), "200 OK", []
        if isinstance(found, str):
            status, headers, found = "302 Found", [f"Location: {found}"], b""
        elif found is None:
            status, found = "404 Not Found", b""
        elif "range" in lines:
            first, last = map(int, lines["range"].removeprefix("bytes=").split("-"))
            status, found = "206 Partial Content", found[first : last + 1]
        headers += [f"Content-Length: {len(found)}", "Content-Type: application/vnd.apple.mpegurl", "", ""]
        connection.sendall("\r\n".join([f"HTTP/1.1 {status}", *headers]).encode() + found)

    return serving(*[answer] * 20)


def frames_of(routes, path, asked=None):
    with served(routes, [] if asked is None else asked) as port:
        moved = {
            name: found.replace("PORT", str(port)) if isinstance(found, str) else found
            for name, found in routes.items()
        }
        routes.update(moved)
        with Reading(f"http://127.0.0.1:{port}{path}", retries=0, stall_timeout_s=60) as reading:
            return len(reading.to_end(60))


@pytest.mark.parametrize("path", ["/moved.m3u8", "/elsewhere.m3u8", "/no-suffix", "/master.m3u8", "/segments.m3u8"])
def test_redirects_are_followed_and_addresses_count_from_where_they_lead(path):
    routes = {
        "/sub/list.m3u8": playlist("one.ts"),
        "/sub/one.ts": STREAM,
        "/moved.m3u8": "/sub/list.m3u8",
        "/elsewhere.m3u8": "http://localhost:PORT/sub/list.m3u8",
        "/no-suffix": "/moved.m3u8",
        "/master.m3u8": b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9,RESOLUTION=640x360\nmoved.m3u8\n",
        "/segments.m3u8": playlist("gone/one.ts"),
        "/gone/one.ts": "/sub/one.ts",
    }
    assert frames_of(routes, path) == 10


@pytest.mark.parametrize("is_segment", [False, True])
@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("file:///etc/hosts", "only http and https addresses are fetched"),
        ("tcp://127.0.0.1:PORT/", "only http and https addresses are fetched"),
        ("/again.ts", "more than 5 redirects"),
    ],
)
def test_redirects_that_are_forbidden_end_it_in_one_line(capfd, is_segment, target, problem):
    routes = {"/list.m3u8": playlist("/again.ts"), "/again.ts": target}
    if not is_segment:
        routes = {"/list.m3u8": target.replace("again.ts", "list.m3u8")}
    asked = []
    with pytest.raises(ValueError, match=problem) as error:
        frames_of(routes, "/list.m3u8", asked)
    assert "\n" not in str(error.value)
    assert len(asked) <= 2 + 6
    assert capfd.readouterr() == ("", "")


def files(address, policy=DEFAULT_POLICY):
    return PlaylistFiles(address, Patience(1, closing=Event()), policy, lambda: None)


@pytest.mark.parametrize(
    ("named", "policy", "problem"),
    [
        ("http://127.0.0.1:9/one.ts", DEFAULT_POLICY, "only https addresses are fetched"),
        ("crypto+http://127.0.0.1:9/one.ts", DEFAULT_POLICY, "only https addresses are fetched"),
        ("https://127.0.0.1:9/one.ts", FetchPolicy(ports=(443,)), "port 9 is not allowed here"),
        ("file:///etc/hosts", DEFAULT_POLICY, "only https addresses are fetched"),
    ],
)
def test_what_an_https_playlist_names_obeys_the_policy(named, policy, problem):
    opened = files("https://host.example/list.m3u8", policy)
    with pytest.raises(FetchError, match=problem):
        opened.open(named, 1, {})
    assert opened.open(named, 1, {}).read(9) == b""  # a second error, PyAV would print


def test_a_first_playlist_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="the server answered 404; check the address"):
        frames_of({}, "/list.m3u8")


def test_a_segment_that_is_not_there_is_named_and_left_out(caplog):
    caplog.set_level(logging.WARNING)
    assert frames_of({"/list.m3u8": playlist("gone.ts", "one.ts"), "/one.ts": STREAM}, "/list.m3u8") == 10
    (record,) = caplog.records
    assert "/gone.ts is left out or ends early (" in record.getMessage()
    assert "the server answered 404" in record.getMessage()


def test_parts_of_a_file_are_asked_for_alone():
    asked = []
    listed = playlist(
        *(f"#EXT-X-BYTERANGE:{size}@{first}\none.ts" for first, size in ((0, HALF), (HALF, len(STREAM) - HALF)))
    )
    assert frames_of({"/list.m3u8": listed, "/one.ts": STREAM}, "/list.m3u8", asked) == 10
    assert asked[-2:] == [f"/one.tsbytes=0-{HALF - 1}", f"/one.tsbytes={HALF}-{len(STREAM) - 1}"]


def test_encrypted_segments_are_read(tmp_path, monkeypatch):
    """AES-128, which FFmpeg decrypts; the key is fetched as all else is."""
    monkeypatch.chdir(tmp_path)  # where FFmpeg writes the key
    plain = tmp_path / "plain.ts"
    plain.write_bytes(STREAM)
    options = {"hls_enc": "1", "hls_enc_key": KEY, "hls_enc_key_url": "key"}
    with (
        av.open(str(plain)) as source,
        av.open(str(tmp_path / "list.m3u8"), "w", format="hls", options=options) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    routes = {f"/sub/{path.name}": path.read_bytes() for path in tmp_path.iterdir()}
    assert b"METHOD=AES-128" in routes["/sub/list.m3u8"]
    asked = []
    assert frames_of(routes | {"/list.m3u8": "/sub/list.m3u8"}, "/list.m3u8", asked) == 10
    assert "/sub/key" in asked
