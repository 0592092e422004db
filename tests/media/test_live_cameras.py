"""Live sources as cheap cameras and servers make them: without times, slow, with keyframes far apart, in variants."""

import io
import os
import threading
import time

import numpy as np
import pytest
from PIL import Image
from support.live_servers import http, send, serving, transport_stream
from support.reading import Reading, times
from support.video_encoding import X264

STREAM = transport_stream(2)


def jpegs(count):
    """Pictures of a cheap camera."""
    pictures = []
    for index in range(count):
        file = io.BytesIO()
        Image.new("RGB", (64, 48), (4 * index, 0, 0)).save(file, "JPEG")
        pictures.append(file.getvalue())
    return pictures


def slowly(pieces, gap_s):
    def treat(connection):
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(gap_s)

    return treat


MOTION_JPEG = "Content-Type: multipart/x-mixed-replace; boundary=frame"


@pytest.mark.parametrize("kind", ["multipart", "multipart after an empty line", "bare"])
def test_a_camera_without_times_is_timed_by_arrival(kind):
    """FFmpeg takes 25 pictures a second for granted, and reads twenty before it begins; a slow camera was given up."""
    head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    pieces = jpegs(9)
    if kind != "bare":
        head = (b"\r\n" if "empty" in kind else b"") + head
        pieces = [head % len(picture) + picture + b"\r\n" for picture in pieces]
    with (
        serving(http(slowly(pieces, 0.12), MOTION_JPEG if kind != "bare" else "Content-Type: video/x")) as port,
        Reading(f"http://127.0.0.1:{port}/", stall_timeout_s=1.5, interval_s=0.05, retries=0) as reading,
    ):
        seen = times(reading.to_end())
    # The first ones are read at once, to know their kind; on a busy machine frames between are dropped.
    assert len(seen) >= 2 and np.diff(seen).min() > 0
    assert seen[-1] - seen[0] > 4 * 0.12  # 8 / 25 by FFmpeg's guess


def test_data_without_a_keyframe_are_waited_for(caplog):
    """Half a group of pictures comes first, slowly: longer than silence is borne."""
    begun = STREAM[: len(STREAM) // 5]
    middle = [STREAM[i : i + 188] for i in range(188 * 5, 188 * 12, 188)]
    with (
        serving(slowly([b"", *middle, begun, STREAM], 0.1)) as port,
        Reading(f"tcp://127.0.0.1:{port}", stall_timeout_s=0.4, retries=0) as reading,
    ):
        assert len(reading.to_end()) > 15
    assert "waiting for a keyframe" in caplog.text


def test_a_pipe_cannot_hold_a_file_with_its_index_at_the_end(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    X264(tmp_path / "clip.mp4")
    clip = (tmp_path / "clip.mp4").read_bytes()
    with Reading(path) as reading:
        writer = threading.Thread(target=path.write_bytes, args=(clip,))
        writer.start()
        with pytest.raises(ValueError, match=r"is an MP4 file whose index is at its end.*pass the file itself"):
            reading.to_end()
        writer.join()


def test_a_still_behind_an_address_is_no_video():
    picture = jpegs(1)[0]
    with (
        serving(http(send(picture), f"Content-Length: {len(picture)}", "Content-Type: image/jpeg")) as port,
        Reading(f"http://127.0.0.1:{port}/", retries=0) as reading,
        pytest.raises(ValueError, match="is an image, not a video"),
    ):
        reading.to_end()


def test_only_one_variant_of_a_master_is_downloaded():
    media = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n/{}.ts\n#EXT-X-ENDLIST\n"
    sizes = {"large": "1920x1080", "fitting": "640x360", "small": "160x90"}
    master = "#EXTM3U\n" + "".join(
        f"#EXT-X-STREAM-INF:BANDWIDTH=9,RESOLUTION={size}\n{name}.m3u8\n" for name, size in sizes.items()
    )
    asked = []

    def answer(connection):
        path = connection.recv(65536).split()[1].decode()
        asked.append(path)
        name, _, suffix = path.strip("/").partition(".")
        body = STREAM if suffix == "ts" else (master if name == "master" else media.format(name)).encode()
        kind = "video/mp2t" if suffix == "ts" else "application/vnd.apple.mpegurl"
        header = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n"
        connection.sendall(header.encode() + body)

    with serving(*[answer] * 8) as port, Reading(f"http://127.0.0.1:{port}/master.m3u8", retries=0) as reading:
        assert len(reading.to_end()) == 20
    assert set(asked) == {"/master.m3u8", "/fitting.m3u8", "/fitting.ts"}
