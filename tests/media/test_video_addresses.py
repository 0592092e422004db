"""Videos from addresses: bad servers are given up with one line, and data URLs are read."""

import base64
import subprocess
import sys
from dataclasses import replace

import pytest
from support.command_lines import assert_refused
from support.http_server import serving
from support.leftovers import LONGEST_S
from support.media import video_path

from mlx_smolvlm.processor import prompt_media


@pytest.fixture
def impatient(monkeypatch):
    """The limits of a download, cut from seconds to what a test can wait for."""
    policy = prompt_media.VIDEO_POLICY
    assert policy.connect_timeout_s < LONGEST_S
    assert policy.stall_timeout_s < LONGEST_S
    monkeypatch.setattr(prompt_media, "VIDEO_POLICY", replace(policy, connect_timeout_s=0.3, stall_timeout_s=0.3))


SERVER = """
import socket, sys, time
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    connection = server.accept()[0]
    connection.sendall(sys.argv[1].encode())
    time.sleep(60)
"""


@pytest.mark.parametrize("words", ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"])
def test_a_server_that_never_delivers_is_given_up(generate, impatient, words):
    with subprocess.Popen([sys.executable, "-c", SERVER, words], stdout=subprocess.PIPE, text=True) as server:
        try:
            url = f"http://127.0.0.1:{int(server.stdout.readline())}/clip.mp4"
            assert_refused(generate("--video", url), "timed out")
        finally:
            server.kill()


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("missing", "404"),
        ("cut", "broke off after 1000 of"),
        ("huge", "larger than the limit"),
        ("garbage", "not valid HTTP"),
        ("body", "is not a video file"),
    ],
)
def test_a_server_that_delivers_no_video_is_refused(generate, path, problem):
    with serving() as server:
        address = f"http://127.0.0.1:{server.server_port}/{path}"
        result = generate("--video", address)
        assert_refused(result, problem)
        assert address in result.err


def test_other_schemes_are_refused(generate):
    for url in ("rtsp://127.0.0.1:9/live", "ftp://127.0.0.1/clip.mp4", "tcp://127.0.0.1:9"):
        assert_refused(generate("--video", url), "videos are not read from there")
    for name in ("concat:a|b", "pipe:0"):
        assert_refused(generate("--video", name), "no such file")


def test_a_data_url_may_hold_a_video(generate):
    clip = video_path("short")
    content = base64.b64encode(clip.read_bytes()).decode()
    options = ("--prompt", "What happens?", "--max-tokens", 4)
    shown = generate("--video", f"data:video/mp4;base64,{content}", *options)
    assert shown.status == 0, shown.err
    assert shown.out == generate("--video", clip, *options).out
