"""What SOURCE means: cameras, streams, pipes and files are told apart, and what is none is refused."""

import pytest

from mlx_smolvlm.media.live.naming import LiveSource, read_source
from mlx_smolvlm.media.live.playlists import best_variant


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rtsp://camera.local/1", LiveSource("stream", "rtsp://camera.local/1")),
        ("https://host/live.m3u8?x=1", LiveSource("stream", "https://host/live.m3u8?x=1")),
        ("HTTP://host/live", LiveSource("http", "HTTP://host/live")),
        ("udp://@:1234", LiveSource("socket", "udp://@:1234")),
        ("lavfi:testsrc2=size=64x64", LiveSource("device", "testsrc2=size=64x64", "lavfi")),
        ("/dev/video7", LiveSource("device", "/dev/video7", "v4l2")),
        ("v4l2:/dev/video3", LiveSource("device", "/dev/video3", "v4l2")),
    ],
)
def test_sources_are_told_apart(monkeypatch, text, expected):
    monkeypatch.setattr("sys.platform", "linux")
    assert read_source(text) == expected


def test_a_source_may_be_a_path_and_nothing_else(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"x")
    assert read_source(tmp_path / "clip.mp4") == LiveSource("file", str(tmp_path / "clip.mp4"))
    for source in (0, None, b"camera"):
        with pytest.raises(TypeError, match=r"^the source is .*, expected a file, an address, or a name such as"):
            read_source(source)


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ("linux", LiveSource("device", "/dev/video2", "v4l2")),
        ("darwin", LiveSource("device", "2:none", "avfoundation")),
    ],
)
def test_cameras_are_those_of_the_system(monkeypatch, platform, expected):
    monkeypatch.setattr("sys.platform", platform)
    assert read_source("camera:2") == read_source("2") == expected


def test_a_screen_is_that_of_the_system(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("DISPLAY", ":1.0")
    assert read_source("screen") == LiveSource("device", ":1.0", "x11grab")
    assert read_source("screen:1") == LiveSource("device", ":1.1", "x11grab")
    monkeypatch.delenv("DISPLAY")
    with pytest.raises(ValueError, match="there is no X display to watch"):
        read_source("screen")
    monkeypatch.setattr("sys.platform", "darwin")
    assert read_source("screen") == LiveSource("device", "Capture screen 0:none", "avfoundation")
    with pytest.raises(ValueError, match=r"use camera:0 for the first one"):
        read_source("/dev/video0")


def test_files_are_not_taken_for_cameras_and_screens(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("0", "screen"):
        (tmp_path / name).write_bytes(b"x")
        assert read_source(name) == LiveSource("file", name)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "folder"),
        ("no such.mp4", "no video file"),
        ("unknown:0", "no video file"),
        ("lavfi:", "names no device"),
        ("screen:x", "names no screen"),
        ("camera:x", "names no camera"),
        ("gopher://host/x", "no kind of stream"),
        ("concat:a|b", "no video file"),
        ("/dev/null", "is a device"),
        ("x" * 5000, "File name too long"),
    ],
)
def test_what_is_no_source_is_refused(text, problem):
    with pytest.raises((ValueError, OSError), match=problem):
        read_source(text)


def test_names_hide_passwords():
    assert read_source("rtsp://user:secret@host/1?token=x").name == "rtsp://host/1"


MASTER = """#EXTM3U
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",URI="sound.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=3000000,RESOLUTION=1920x1080,CODECS="avc1.4d401f,mp4a.40.2"
large.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=800000,RESOLUTION=640x360
#EXT-X-SOMETHING
sd/medium.m3u8?x=1
#EXT-X-STREAM-INF:BANDWIDTH=900000,RESOLUTION=640x360
https://other.example/better.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=200000,RESOLUTION=256x144
small.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=64000
sound.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=999999,RESOLUTION=640x360
file:///etc/passwd
"""


@pytest.mark.parametrize(
    ("edge", "expected"),
    [
        (512, "https://other.example/better.m3u8"),
        (384, "https://other.example/better.m3u8"),
        (100, "http://host/a/small.m3u8"),
        (1000, "http://host/a/large.m3u8"),
        (4000, "http://host/a/large.m3u8"),
    ],
)
def test_of_a_master_the_smallest_variant_that_is_large_enough_is_read(edge, expected):
    assert best_variant(MASTER, "http://host/a/master.m3u8", edge) == expected
    assert best_variant("#EXTM3U\n#EXTINF:2,\nx.ts\n", "http://host/x.m3u8", edge) is None
