"""SOURCE -> an open video: files, cameras and other devices, pipes and streams. PyAV, no MLX.

A source is what a person names on a command line, so it may be on the local network, as cameras are. What the source
itself names (a playlist, a redirect) is read from the network only, never from this machine's files.
"""

import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ...options import FetchPolicy
from ..connections import Patience, Stalled
from ..fetch import DEFAULT_POLICY
from ..images import path_of_file_url
from ..urls import check_size, printable, redact_url
from ..video.container import film_stream, open_video, reason, video_path
from .transport import open_http, open_pipe, open_socket

if TYPE_CHECKING:
    import av

NETWORK_PROTOCOLS = "crypto,http,httpproxy,https,rtmp,rtmpe,rtmps,rtmpt,rtp,srt,srtp,tcp,tls,udp"
DEVICE_FORMATS = ("avfoundation", "v4l2", "lavfi", "x11grab", "fbdev", "gdigrab", "dshow", "decklink", "kmsgrab")
CAMERA_FORMATS = {"darwin": ("avfoundation", "{}:none"), "linux": ("v4l2", "/dev/video{}")}
MAX_DOWNLOAD_BYTES = 2 * 1024**3  # of a file behind a web address
PLAYLISTS = (".m3u8", ".mpd")
PLAYLIST_TYPES = ("mpegurl", "dash+xml")
RTSP_STEP_S = 0.3  # RTSP can go on after a read was given up, so that a closed source need not be waited for


@dataclass(frozen=True)
class LiveSource:
    """What SOURCE names.

    Attributes:
        kind: "file", "pipe", "device", "socket" (tcp, udp), "http" or "stream" (all that FFmpeg connects to itself).
        target: path, device name or address; empty for standard input.
        device_format: FFmpeg's name of the kind of device.
        policy: where connections may go and how large a download may be; None for anywhere.
    """

    kind: str
    target: str
    device_format: str | None = None
    policy: FetchPolicy | None = None

    @property
    def name(self) -> str:
        """Its name in messages, without passwords."""
        if self.kind in ("socket", "http", "stream"):
            return redact_url(self.target)
        if self.device_format:
            return printable(f"{self.device_format}:{self.target}", 120)
        return printable(self.target, 200) or "standard input"

    @property
    def is_network(self) -> bool:
        """Whether it can be connected to again."""
        return self.kind in ("socket", "http", "stream")


@dataclass(frozen=True)
class OpenSource:
    """A container with its first video stream; `is_live`: its pace is its own, and what is not read is lost."""

    container: "av.container.InputContainer"
    stream: Any
    is_live: bool


def read_source(text: str, policy: FetchPolicy | None = None) -> LiveSource:
    """Understand SOURCE.

    Args:
        text: a file, a named pipe, `-` for standard input, `camera` or `camera:N`, `FORMAT:NAME` for a device of
            FFmpeg (`v4l2:/dev/video0`, `avfoundation:0`, `lavfi:testsrc2`), or an address (rtsp, http, https, tcp,
            udp, rtmp, srt, ...).
        policy: of it the schemes, the redirects, the largest download and the allowed addresses count.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a folder or an empty file, an unknown kind of address, or no camera on this system.
    """
    if text == "-":
        if os.isatty(0):
            raise ValueError("standard input is a terminal, expected a video; pipe one in")
        return LiveSource("file" if stat.S_ISREG(os.fstat(0).st_mode) else "pipe", "")
    scheme, separator, _ = text.partition("://")
    if separator and scheme.isalnum():
        source = replace(_address(text, scheme.lower()), policy=policy)
        if source.kind == "stream" or text.lower().startswith("udp"):
            _refuse_unchecked(source)
        return source
    mode = _mode(text)
    if stat.S_ISFIFO(mode):
        return LiveSource("pipe", text)
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise ValueError(f"{text} is a device; say of what kind, for example v4l2:{text}")
    if text.partition(":")[0] == "camera":
        return _camera(text)
    kind, colon, device = text.partition(":")
    if colon and kind in DEVICE_FORMATS and not mode:
        if not device:
            raise ValueError(f"{text} names no device, expected FORMAT:NAME, for example lavfi:testsrc2")
        return LiveSource("device", device, kind)
    return LiveSource("file", str(video_path(text)))


def _refuse_unchecked(source: LiveSource) -> None:
    """What FFmpeg connects to itself, nobody has checked."""
    if source.policy is not None and source.policy.check_address is not None:
        raise ValueError(
            f"{source.name}: FFmpeg connects to it by itself, so fetch_policy.check_address cannot be asked"
        )


def _mode(path: str) -> int:
    """The kind and rights of a file, 0 if there is none."""
    try:
        return os.stat(path).st_mode
    except (OSError, ValueError):  # ValueError: names that no file can have
        return 0


def _address(text: str, scheme: str) -> LiveSource:
    try:
        urlsplit(text)
    except ValueError:
        raise ValueError(f"{redact_url(text)}: not a valid address; expected {scheme}://host/path") from None
    if scheme == "file":
        return LiveSource("file", str(video_path(path_of_file_url(text, text))))
    if scheme in ("http", "https"):
        is_playlist = urlsplit(text).path.lower().endswith(PLAYLISTS)
        return LiveSource("stream" if is_playlist else "http", text)
    if scheme in ("tcp", "udp"):
        return LiveSource("socket", text)
    if scheme in ("rtsp", "rtsps") or scheme in NETWORK_PROTOCOLS.split(","):
        return LiveSource("stream", text)
    raise ValueError(f"{redact_url(text)}: {scheme} is no kind of stream; expected rtsp, http, tcp, udp or the like")


def _camera(text: str) -> LiveSource:
    number = text.removeprefix("camera").removeprefix(":") or "0"
    if not number.isdecimal():
        raise ValueError(f"{text} names no camera, expected camera or camera:N with N from 0")
    if sys.platform not in CAMERA_FORMATS:
        raise ValueError(f"cameras of {sys.platform} are not known; name the device as FORMAT:NAME")
    device_format, device = CAMERA_FORMATS[sys.platform]
    return LiveSource("device", device.format(number), device_format)


@contextmanager
def open_live_source(
    source: LiveSource, patience: Patience, expect_nothing: Callable[[bool], None] = lambda _: None
) -> Iterator[OpenSource]:
    """Open a source once.

    Args:
        source: from `read_source`.
        patience: how long to wait, and whether it is still wanted. FFmpeg's own connections (kind "stream") are
            waited for until its time is up.
        expect_nothing: called with True and then with False around a download, which may take its time.

    Raises:
        ValueError: nothing that FFmpeg reads as a video.
        OSError: a source that is not there, or that stalls (`Stalled`).
        Closed: no longer wanted.
    """
    with ExitStack() as opened:
        is_file = source.kind == "file"
        if source.kind == "file" and source.target:
            container, stream = opened.enter_context(open_video(Path(source.target)))
            yield OpenSource(container, stream, False)
            return
        file: Any = source.target
        if is_file:  # standard input, which may be read anywhere
            file = opened.enter_context(os.fdopen(os.dup(0), "rb"))
        elif source.kind == "pipe":
            file = opened.enter_context(open_pipe(Path(source.target) if source.target else None, patience))
        elif source.kind == "socket":
            file = opened.enter_context(open_socket(source.target, patience, source.policy or DEFAULT_POLICY))
        elif source.kind == "http":
            file, is_file = _http_file(source, opened, patience, expect_nothing)
        container = opened.enter_context(_container(source, file, patience))
        if source.kind == "stream":  # a recording behind a playlist is given as fast as it is read
            is_file = container.duration is not None and container.format.name in ("hls", "dash")
        stream = film_stream(container, source.name)
        stream.thread_type = "SLICE"  # threads by frame would hold frames back
        yield OpenSource(container, stream, not is_file)


def _http_file(
    source: LiveSource, opened: ExitStack, patience: Patience, expect_nothing: Callable[[bool], None]
) -> tuple[Any, bool]:
    """What to read, and whether it is a file: one is downloaded first, as its index may be at the end."""
    with ExitStack() as connection:
        body, length, media_type = connection.enter_context(
            open_http(source.target, patience, source.policy or DEFAULT_POLICY)
        )
        if any(playlist in media_type.lower() for playlist in PLAYLIST_TYPES):
            _refuse_unchecked(source)
            return source.target, False
        if length is None:
            opened.push(connection.pop_all())
            return body, False
        check_size(length, source.policy.max_bytes if source.policy else MAX_DOWNLOAD_BYTES, source.name)
        file = opened.enter_context(TemporaryFile(prefix="mlx_smolvlm_"))
        expect_nothing(True)
        shutil.copyfileobj(body, file)
        expect_nothing(False)
        if file.tell() != length:
            raise Stalled(f"broke off after {file.tell()} of {length} bytes")
        file.seek(0)
        return file, True


@contextmanager
def _container(source: LiveSource, file: Any, patience: Patience) -> Iterator["av.container.InputContainer"]:
    import av

    options: dict[str, str] = {}
    if source.kind != "device":
        options["protocol_whitelist"] = NETWORK_PROTOCOLS  # for what a playlist names
        options["analyzeduration"] = "1000000"  # microseconds; FFmpeg's own five seconds would come before any frame
    arguments: dict[str, Any] = {}
    if isinstance(file, str):
        arguments["format"] = source.device_format
        if source.kind == "device":
            if source.device_format == "avfoundation":
                options["framerate"] = "30"  # its own default, 29.97, is refused by most cameras
        else:
            options["rtsp_flags"] = "prefer_tcp"  # arrives complete, and through firewalls
            read_s = RTSP_STEP_S if source.target.lower().startswith("rtsp") else patience.stall_timeout_s
            arguments["timeout"] = (patience.stall_timeout_s, read_s)
    begun_s = time.monotonic()
    try:
        if source.device_format:
            av.format.ContainerFormat(source.device_format, "r")
        container = av.open(file, container_options=options, **arguments)
    except (ValueError, av.FFmpegError) as error:
        waited_s = time.monotonic() - begun_s
        if source.kind == "stream" and waited_s >= patience.stall_timeout_s:  # given up, whatever the error is called
            raise Stalled(f"nothing came for {patience.stall_timeout_s:g} s") from None
        raise _refusal(source, error) from None
    with container:
        yield container


def _refusal(source: LiveSource, error: Exception) -> Exception:
    """The error for a source that FFmpeg does not open."""
    import av

    if source.device_format and not isinstance(error, av.FFmpegError):
        return ValueError(f"{source.name}: FFmpeg has no {source.device_format} devices on this system")
    if isinstance(error, OSError) and source.kind in ("device", "stream"):
        return OSError(f"{source.name} cannot be opened ({reason(error)})")
    return ValueError(f"{source.name} is not a video that FFmpeg can read ({reason(error)})")
