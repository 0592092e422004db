"""Live sources are read: frames from each kind, losing and finding them again, and an end within a second."""

import os
import threading
import time

import numpy as np
import pytest
from support.live_servers import http, nothing_left_behind, rtp_packets, rtsp, send, serving, stall, transport_stream
from support.media import video_path
from support.reading import Reading, times
from support.video_files import write_video_file

from mlx_smolvlm.media.live import reader as live_reader

STREAM = transport_stream(2)
WITHIN_S = 3.0  # one second is promised; the rest is for a busy machine. A wait that is not ended takes 5 s or more


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    """Connecting again takes no time in tests."""
    monkeypatch.setattr(live_reader, "FIRST_PAUSE_S", 0.01)


# Frames


def test_a_file_is_sampled_evenly_and_waits_for_the_model():
    with nothing_left_behind(), Reading(video_path("clip"), interval_s=0.5, max_frames=3) as reading:
        seen = []
        for end_s in np.arange(0.5, 5, 0.5):
            assert reading.buffer.wait_for(end_s, 5)
            time.sleep(0.02)
            seen += reading.buffer.take(end_s - 0.5, end_s - 0.1, end_s)
    assert times(seen) == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]
    assert reading.buffer.dropped == 0


def test_an_avi_file_takes_the_time_of_its_frames_in_display_order(tmp_path):
    """FFmpeg's times go back and forth there, and each step back once passed for a jump of the clock."""
    path = write_video_file("h264_avi", tmp_path)
    with Reading(path, interval_s=0.25, max_frames=20) as reading:
        assert times(reading.to_end()) == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, round(47 / 24, 3)]


def test_a_file_that_is_cut_off_is_read_with_a_note(tmp_path, caplog):
    path = write_video_file("h264_avi", tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with Reading(path, interval_s=0.25, max_frames=20) as reading:
        assert 2 < len(reading.to_end()) < 7
    assert f"{path.name} is incomplete: " in caplog.text
    assert " MB are there" in caplog.text


def test_a_file_in_real_time_does_not_wait():
    began = time.monotonic()
    with Reading(video_path("short"), interval_s=1 / 24, max_frames=3, realtime=True) as reading:
        kept = reading.to_end()
    assert time.monotonic() - began > 0.9  # the file is one second long
    assert len(kept) == 3
    assert reading.buffer.dropped == 21


def test_a_source_without_end_has_the_pace_that_it_states():
    with nothing_left_behind(), Reading("lavfi:testsrc2=size=64x64:rate=20", max_frames=4) as reading:
        began = time.monotonic()
        while reading.buffer.newest_s < 0.7:
            time.sleep(0.01)
        passed_s = time.monotonic() - began
        assert passed_s > 0.4  # at once, were it read as quickly as it comes
    assert reading.buffer.dropped > 0


def test_a_named_pipe_is_read_as_it_is_written(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with nothing_left_behind(), Reading(path) as reading:
        time.sleep(0.3)  # nobody writes yet
        writer = threading.Thread(target=path.write_bytes, args=(STREAM,))
        writer.start()
        frames = reading.to_end()
        writer.join()
    assert times(frames) == [round(0.1 * i, 1) for i in range(20)]
    assert [int(frame.tile[0, 0, 0]) for frame in frames] == pytest.approx([4 * i for i in range(20)], abs=3)
    assert reading.buffer.end_s == pytest.approx(2)


@pytest.mark.parametrize("kind", ["tcp", "http", "chunked", "file"])
def test_network_streams_are_read(kind):
    length = f"Content-Length: {len(STREAM)}"
    treatment = {
        "tcp": send(STREAM),
        "http": http(send(STREAM), "Content-Type: video/mp2t"),
        "chunked": http(send(b"%x\r\n" % len(STREAM) + STREAM + b"\r\n0\r\n\r\n"), "Transfer-Encoding: chunked"),
        "file": http(send(STREAM), length),
    }[kind]
    with nothing_left_behind(WITHIN_S), serving(treatment) as port:
        scheme = "tcp" if kind == "tcp" else "http"
        with Reading(f"{scheme}://127.0.0.1:{port}/", retries=0) as reading:
            assert len(reading.to_end()) == 20
            assert reading.buffer.drops == (kind != "file")


# Losing a source


@pytest.mark.parametrize("loss", [send(STREAM), stall(STREAM)], ids=["hangs up", "stalls"])
def test_a_lost_stream_is_connected_to_again(loss, caplog):
    """Its time goes on by what has passed."""
    with serving(loss, send(STREAM)) as port, Reading(f"tcp://127.0.0.1:{port}", stall_timeout_s=0.4) as reading:
        frames = reading.to_end()
    assert len(frames) > 30
    assert times(frames) == sorted(times(frames))
    assert frames[-1].time_s - frames[0].time_s < 5
    assert "connecting again (1 of 2)" in caplog.text
    assert "connecting again (2 of 2)" in caplog.text  # after the second stream, in vain


def test_attempts_are_counted_from_the_last_success(caplog):
    with serving(*[send(STREAM)] * 4) as port, Reading(f"tcp://127.0.0.1:{port}", retries=1) as reading:
        reading.to_end()
    assert caplog.text.count("connecting again (1 of 1)") == 4
    assert "has ended" in caplog.text


def test_a_stream_that_breaks_for_good_is_an_error():
    with (
        serving(stall(STREAM)) as port,
        Reading(f"tcp://127.0.0.1:{port}", stall_timeout_s=0.3) as reading,
        pytest.raises(ValueError, match=rf"tcp://127.0.0.1:{port}: nothing came for 0.3 s"),
    ):
        reading.to_end()


@pytest.mark.parametrize(
    ("treatment", "problem"),
    [
        (stall(), "nothing came for 0.3 s"),
        (http(stall()), "nothing came for 0.3 s"),
        (http(send(b"no video " * 10000)), "not a video"),
        (http(send(b"x" * 10), "Content-Length: 100"), "broke off after 10 of 100 bytes"),
        (lambda connection: connection.sendall(b"HTTP/1.1 404 Gone\r\nContent-Length: 0\r\n\r\n"), "answered 404"),
    ],
    ids=["silent", "silent after its header", "not a video", "broken off", "missing"],
)
def test_a_stream_that_never_gives_a_frame_is_refused_at_once(treatment, problem):
    with (
        nothing_left_behind(WITHIN_S),
        serving(treatment) as port,
        Reading(f"http://127.0.0.1:{port}/", stall_timeout_s=0.3) as reading,
        pytest.raises(ValueError) as error,
    ):
        reading.to_end(3)
    assert problem in str(error.value)


@pytest.mark.parametrize("scheme", ["http", "tcp"])
def test_a_list_from_the_network_reads_no_files(scheme, monkeypatch):
    """Neither an HLS playlist nor an FFmpeg script that names a video of this machine."""
    monkeypatch.chdir(video_path("clip").parent)
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{video_path('clip')}\n#EXT-X-ENDLIST\n"
    for content in (playlist, "ffconcat version 1.0\nfile clip.mp4\n"):
        answer = send(content.encode())
        if scheme == "http":
            kind = "application/vnd.apple.mpegurl" if content is playlist else "video/mp4"
            answer = http(answer, f"Content-Length: {len(content)}", f"Content-Type: {kind}")
        with (
            serving(*[answer] * 4) as port,
            Reading(f"{scheme}://127.0.0.1:{port}/live", retries=0) as reading,
            pytest.raises(ValueError, match=r"not a video|cannot be opened|holds no frame|not permitted"),
        ):
            reading.to_end()


def test_rtsp_goes_on_after_a_pause_and_ends_at_once():
    """FFmpeg waits for RTSP in short steps; a wait that was given up is taken up again."""
    packets = rtp_packets(2)
    halfway = len(packets) // 2

    def play(send_packet):
        for packet in packets[:halfway]:
            send_packet(packet)
        time.sleep(1)
        for packet in packets[halfway:]:
            send_packet(packet)

    with nothing_left_behind(WITHIN_S), serving(rtsp(play)) as port:
        with Reading(f"rtsp://127.0.0.1:{port}/x", stall_timeout_s=8, retries=0) as reading:
            assert reading.buffer.wait_for(1.7, 8)
            began = time.monotonic()
        assert time.monotonic() - began < WITHIN_S
    frames = reading.buffer.take(0, 9, 0)
    assert times(frames) == pytest.approx([0.1 * i for i in range(len(frames))], abs=0.02)


# The end


@pytest.mark.parametrize("treatment", [stall(), http(stall()), stall(STREAM)], ids=["silent", "header", "mid-stream"])
@pytest.mark.parametrize("scheme", ["tcp", "http"])
def test_closing_ends_a_wait_for_the_network(scheme, treatment):
    with nothing_left_behind(WITHIN_S), serving(treatment) as port:
        with Reading(f"{scheme}://127.0.0.1:{port}/"):
            time.sleep(0.2)
            began = time.monotonic()
        assert time.monotonic() - began < WITHIN_S


def test_closing_ends_every_other_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    cases = [
        (tmp_path / "pipe", {}),  # nobody writes
        (video_path("clip"), {"max_frames": 2}),  # nobody takes
        (video_path("clip"), {"realtime": True}),
        ("udp://127.0.0.1:0", {}),
    ]
    for source, options in cases:
        with nothing_left_behind():
            with Reading(source, **options):
                time.sleep(0.15)
                began = time.monotonic()
            assert time.monotonic() - began < WITHIN_S, source
