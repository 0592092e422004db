"""What SOURCE means: cameras, streams, pipes and files are told apart, and what is none is refused."""

import pytest

from mlx_smolvlm.media.live.source import LiveSource, read_source


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rtsp://camera.local/1", LiveSource("stream", "rtsp://camera.local/1")),
        ("https://host/live.m3u8?x=1", LiveSource("stream", "https://host/live.m3u8?x=1")),
        ("HTTP://host/live", LiveSource("http", "HTTP://host/live")),
        ("udp://@:1234", LiveSource("socket", "udp://@:1234")),
        ("lavfi:testsrc2=size=64x64", LiveSource("device", "testsrc2=size=64x64", "lavfi")),
        ("v4l2:/dev/video3", LiveSource("device", "/dev/video3", "v4l2")),
    ],
)
def test_sources_are_told_apart(text, expected):
    assert read_source(text) == expected


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ("linux", LiveSource("device", "/dev/video2", "v4l2")),
        ("darwin", LiveSource("device", "2:none", "avfoundation")),
    ],
)
def test_cameras_are_those_of_the_system(monkeypatch, platform, expected):
    monkeypatch.setattr("sys.platform", platform)
    assert read_source("camera:2") == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "folder"),
        ("no such.mp4", "no video file"),
        ("unknown:0", "no video file"),
        ("lavfi:", "names no device"),
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
