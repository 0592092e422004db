"""`python -m mlx_smolvlm.watch`: what it prints, how it refuses, and that it ends within a second when told to."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.command_lines import assert_refused, run
from support.leftovers import LONGEST_S
from support.live_servers import http, send, serving, stall, transport_stream
from support.media import video_path

from mlx_smolvlm.api import loading

ROOT = Path(__file__).parent.parent.parent
WITHIN_S = 4.0  # one second is promised; the rest is for a busy machine. A wait that is not ended takes 8 s
ENDLESS = "lavfi:testsrc2=size=64x48:rate=30"
FIELDS = [
    "start_s",
    "end_s",
    "text",
    "frames",
    "dropped_frames",
    "total_dropped",
    "lag_s",
    "generation_s",
    "finish_reason",
    "wall_time",
]


@pytest.fixture
def watch(monkeypatch, capsys, checkpoint):
    """A function from arguments to the run's result, on a tiny checkpoint."""
    model = checkpoint("smolvlm_256m")
    return lambda *arguments: run(monkeypatch, capsys, "watch", "--model", model, "--max-tokens", 2, *arguments)


@pytest.fixture
def started(checkpoint):
    """A function that starts a real process; those left over are killed."""
    processes = []

    def start(*arguments, **options):
        command = [sys.executable, "-m", "mlx_smolvlm.watch", "--model", checkpoint("smolvlm_256m"), *arguments]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT, **options}
        processes.append(subprocess.Popen([*map(str, command)], **options))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def end_of(process):
    """Exit status and standard error of a process that is about to end."""
    began = time.monotonic()
    _, errors = process.communicate(timeout=10)
    assert time.monotonic() - began < WITHIN_S
    return process.returncode, errors


# What it prints


def test_each_window_is_a_line(watch):
    result = watch(video_path("clip"), "--window", 2)
    assert result.status == 0
    assert [line[:22] for line in result.out.splitlines()] == [
        "[00:00:00 - 00:00:02] ",
        "[00:00:02 - 00:00:04] ",
        "[00:00:04 - 00:00:05] ",
    ]
    assert result.err == f"{video_path('clip')} has ended\n"


def test_json_is_one_object_per_line(watch):
    text = watch(video_path("clip"), "--window", 2)
    result = watch(video_path("clip"), "--window", 2, "--json")
    reports = [json.loads(line) for line in result.out.splitlines()]
    assert [list(report) for report in reports] == [FIELDS] * 3
    assert [(report["start_s"], report["end_s"]) for report in reports] == [(0, 2), (2, 4), (4, 5)]
    assert [" ".join(report["text"].split()) for report in reports] == [
        line.partition("] ")[2] for line in text.out.splitlines()
    ]


def test_options_reach_the_model(watch):
    def texts(*options):
        return watch(video_path("short"), "--window", 1, "--json", *options).out

    assert json.loads(texts("--fps", 12))["frames"] == 8  # the checkpoint's most
    assert json.loads(texts("--fps", 12, "--max-frames", 3))["frames"] == 3
    plain, other, system = (json.loads(texts(*o))["text"] for o in ((), ("--prompt", "x"), ("--system", "Be brief.")))
    assert len({plain, other, system}) > 1


def test_a_stream_that_comes_back_is_reported(watch):
    body = http(send(transport_stream(2)))
    with serving(body, body) as port:
        url = f"http://127.0.0.1:{port}/live"
        result = watch(url, "--window", 1, "--retries", 1)
    assert result.status == 0
    assert result.out.count("\n") >= 2
    assert f"{url} has ended; connecting again (1 of 1)\n" in result.err
    assert result.err.endswith(f"{url} has ended\n")


@pytest.mark.slow
def test_drops_are_said(watch):
    result = watch(video_path("short"), "--realtime", "--window", "0.1", "--fps", 40, "--max-tokens", 300)
    assert result.status == 0
    assert "frames dropped" in result.err


# How it refuses


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "required: SOURCE"),
        (("no such.mp4",), "no video file"),
        (("x", "y"), "unrecognized"),
        ((ENDLESS, "--window", "0"), "window is 0.0"),
        ((ENDLESS, "--every", "nan"), "every is nan"),
        ((ENDLESS, "--stall-timeout", "-1"), "stall timeout is -1"),
        ((ENDLESS, "--retries", "-1"), "retries is -1"),
        ((ENDLESS, "--prompt", " "), "--prompt is empty"),
        ((ENDLESS, "--prompt", "two <video> and <video>"), "2 <video> markers"),
        ((ENDLESS, "--temperature", "-1"), "temperature"),
        ((ENDLESS, "--fps", "0"), "fps is 0"),
        ((ENDLESS, "--max-tokens", "0"), "max_tokens is 0"),
        ((ENDLESS, "--win", "1"), "unrecognized"),
        (("lavfi:sine",), "no video stream"),
        (("lavfi:nonsense",), "lavfi:nonsense"),
        (("camera:77",), "video77" if sys.platform == "linux" else "camera"),
        (("rtsp://127.0.0.1:1/x",), "cannot be opened"),
    ],
)
def test_bad_input_is_one_line(watch, arguments, problem):
    began = time.monotonic()
    assert_refused(watch(*arguments), problem)
    assert time.monotonic() - began < LONGEST_S


@pytest.mark.parametrize("content", ["empty", "cut", "picture", "audio"])
def test_what_is_no_video_is_refused(watch, tmp_path, content):
    path = tmp_path / "clip.mp4"
    path.write_bytes(
        {
            "empty": b"",
            "cut": video_path("clip").read_bytes()[:900],
            "picture": (ROOT / "mlx_smolvlm" / "demo" / "picture.png").read_bytes(),
            "audio": b"RIFF$\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0@\x1f\0\0@\x1f\0\0\x01\0\x08\0data\0\0\0\0",
        }[content]
    )
    assert_refused(watch(path), str(path))


def test_the_error_of_the_demo_stands_alone(monkeypatch, capsys):
    assert_refused(run(monkeypatch, capsys, "watch", "lavfi:sine"), "no video stream")


def test_standard_input_that_says_nothing_is_given_up(started):
    process = started("-", "--stall-timeout", 1, stdin=subprocess.PIPE)
    process.wait(timeout=20)
    assert process.returncode == 2
    assert process.stderr.read() == "error: standard input: nothing came for 1 s\n"


# The end


def test_standard_input_is_read_to_its_end(started):
    process = started("-", "--max-tokens", 2, "--window", 60, stdin=subprocess.PIPE, text=False)
    out, err = process.communicate(transport_stream(2), timeout=30)
    assert (process.returncode, err) == (0, b"standard input has ended\n")
    assert out.startswith(b"[00:00:00 - 00:00:0")


def test_standard_input_may_be_a_file_with_its_index_at_the_end(started):
    with (ROOT / "mlx_smolvlm" / "demo" / "clip.mp4").open("rb") as file:
        process = started("-", "--max-tokens", 2, stdin=file)
        out, _ = process.communicate(timeout=30)
    assert out.startswith("[00:00:00 - 00:00:07.7] ")


@pytest.mark.parametrize(
    ("source", "number", "status"), [("busy", signal.SIGINT, 130), ("silent", signal.SIGTERM, 143)]
)
def test_a_signal_ends_it(started, source, number, status):
    with serving(stall(transport_stream(2))) as port:
        if source == "busy":
            process = started(ENDLESS, "--window", "0.2", "--max-tokens", 150)
        else:
            process = started(f"tcp://127.0.0.1:{port}", "--window", "0.3", "--max-tokens", 1)
        assert process.stdout.readline()
        time.sleep(0.3)
        process.send_signal(number)
        ended, errors = end_of(process)
    assert ended == status
    assert "Traceback" not in errors


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_the_model_loads_ends_it(watch, monkeypatch, number, status):
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def load(*_, **__):
        os.kill(os.getpid(), number)
        time.sleep(5)
        raise AssertionError("went on")

    monkeypatch.setattr(loading, "load", load)
    assert watch(ENDLESS) == (status, "", "")
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


@pytest.mark.parametrize("source", ["busy", "silent"])
def test_a_reader_that_goes_away_ends_it(started, source):
    """Also while there is nothing to print, when no write would fail."""
    with serving(stall(transport_stream(2))) as port:
        name = ENDLESS if source == "busy" else f"tcp://127.0.0.1:{port}"
        process = started(name, "--window", "0.3", "--max-tokens", 2, "--json")
        assert process.stdout.readline()
        if source == "silent":
            time.sleep(1)
        began = time.monotonic()
        process.stdout.close()
        process.wait(timeout=10)
        assert time.monotonic() - began < WITHIN_S
    assert process.returncode == 0
    assert "error" not in process.stderr.read()
