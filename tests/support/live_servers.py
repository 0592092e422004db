"""Videos to stream, and a server on this machine that treats each connection as told."""

import contextlib
import io
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import numpy as np

Treatment = Callable[[socket.socket], None]


def transport_stream(seconds: float, fps: int = 10) -> bytes:
    """An MPEG transport stream, which can be joined anywhere; frame i is grey of level 4 * i."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=fps)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 5
        stream.codec_context.time_base = Fraction(1, fps)
        for index in range(round(seconds * fps)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 4 * index % 256, np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def send(data: bytes) -> Treatment:
    """Send all at once and hang up."""
    return lambda connection: connection.sendall(data)


def stall(data: bytes = b"", seconds: float = 20) -> Treatment:
    """Send, then say nothing until the client leaves."""

    def treat(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            while connection.recv(1024):
                pass

    return treat


def http(body: Treatment, *headers: str) -> Treatment:
    """Read a request, answer with 200, then treat the connection as told."""

    def treat(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall("\r\n".join(["HTTP/1.1 200 OK", *headers, "", ""]).encode())
        body(connection)

    return treat


def rtp_packets(seconds: float, fps: int = 10) -> list[bytes]:
    """The frames of `transport_stream` as RTP packets."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        packets = []
        with (
            av.open(io.BytesIO(transport_stream(seconds, fps))) as source,
            av.open(f"rtp://127.0.0.1:{receiver.getsockname()[1]}", "w", format="rtp") as target,
        ):
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        packets.append(receiver.recv(65536))
    return packets


def rtsp(play: Callable[[Callable[[bytes], None]], None]) -> Treatment:
    """An RTSP server that sends its packets through the connection; `play` is given the function that sends one."""
    sdp = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP 32\r\n"  # 32: MPEG video
    answers = {
        "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n\r\n{sdp}",
        "SETUP": "Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n",
    }

    def treat(connection: socket.socket) -> None:
        with connection.makefile("rb") as requests:
            while line := requests.readline():
                method, header = line.split()[0].decode(), [line]
                while header[-1] not in (b"\r\n", b""):
                    header.append(requests.readline())
                number = next(field for field in header if field.lower().startswith(b"cseq")).strip().decode()
                answer = answers.get(method, "Session: 1\r\n\r\n")
                connection.sendall(f"RTSP/1.0 200 OK\r\n{number}\r\n{answer}".encode())
                if method == "PLAY":
                    play(lambda packet: connection.sendall(b"$\0" + len(packet).to_bytes(2, "big") + packet))

    return treat


@contextlib.contextmanager
def serving(*treatments: Treatment) -> Iterator[int]:
    """A port; its first connection gets the first treatment, and so on. Further ones are refused."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections = []

    def serve() -> None:
        for number, treatment in enumerate(treatments):
            try:
                connection, _ = listener.accept()
            except OSError:  # closed: the test is over
                return
            if number == len(treatments) - 1:
                listener.close()
            connections.append(connection)
            with connection, contextlib.suppress(OSError):
                treatment(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        for part in (listener, *connections):
            with contextlib.suppress(OSError):
                part.shutdown(socket.SHUT_RDWR)
            part.close()
        thread.join()


@contextlib.contextmanager
def nothing_left_behind(within_s: float = 0.0) -> Iterator[None]:
    """Within: no more threads and open files at the end than at the beginning."""
    av.open("color=size=16x16:duration=0.04", format="lavfi").close()  # what is opened once for all
    before = _open_files(), threading.active_count()  # what a test before has given up may still be ending
    yield
    deadline = time.monotonic() + within_s
    while _has_more_than(before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _has_more_than(before)


def _has_more_than(before: tuple[int, int]) -> bool:
    return _open_files() > before[0] or threading.active_count() > before[1]


def _open_files() -> int:
    return len(os.listdir("/dev/fd"))
