"""What SOURCE names: a file, a camera, a screen, a pipe or a stream."""

import os
import re
import stat
import sys
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from ...options import FetchPolicy, quoted
from ..urls import path_of_file_url, printable, redact_url
from ..video.container import video_path

NETWORK_PROTOCOLS = "crypto,http,httpproxy,https,rtmp,rtmpe,rtmps,rtmpt,rtp,srt,srtp,tcp,tls,udp"
DEVICE_FORMATS = ("avfoundation", "v4l2", "lavfi", "x11grab", "fbdev", "gdigrab", "dshow", "decklink", "kmsgrab")
CAMERA_FORMATS = {"darwin": ("avfoundation", "{}:none"), "linux": ("v4l2", "/dev/video{}")}
HLS_PLAYLIST = ".m3u8"
PLAYLISTS = (HLS_PLAYLIST, ".mpd")
CAMERA_DEVICE = re.compile(r"/dev/video\d+")


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


def read_source(source: str | os.PathLike[str], policy: FetchPolicy | None = None) -> LiveSource:
    """Understand SOURCE.

    Args:
        source: a file, a named pipe, `-` for standard input, `camera`, `camera:N` or N, `screen` or `screen:N`,
            `/dev/videoN`, `FORMAT:NAME` for a device of FFmpeg (`v4l2:/dev/video0`, `avfoundation:0`,
            `lavfi:testsrc2`), or an address (rtsp, http, https, tcp, udp, rtmp, srt, ...).
        policy: of it the schemes, the redirects, the largest download and the allowed addresses count.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a folder or an empty file, an unknown kind of address, or no camera on this system.
        TypeError: neither text nor a path.
    """
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"the source is {quoted(source)}, expected a file, an address, or a name such as 'camera:0'")
    text = os.fsdecode(source)
    if text == "-":
        if os.isatty(0):
            raise ValueError("standard input is a terminal, expected a video; pipe one in")
        return LiveSource("file" if stat.S_ISREG(os.fstat(0).st_mode) else "pipe", "")
    scheme, separator, _ = text.partition("://")
    if separator and scheme.isalnum():
        named = replace(_address(text, scheme.lower()), policy=policy)
        if named.kind == "stream" or text.lower().startswith("udp"):
            refuse_unchecked(named)
        return named
    mode = _mode(text)
    if CAMERA_DEVICE.fullmatch(text) and (stat.S_ISCHR(mode) or not mode):
        if sys.platform != "linux":
            raise ValueError(f"{text}: cameras have no such names on this system; use camera:0 for the first one")
        return LiveSource("device", text, "v4l2")
    if stat.S_ISFIFO(mode):
        return LiveSource("pipe", text)
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise ValueError(f"{text} is a device; say of what kind, for example v4l2:{text}")
    if text.isdecimal() and not mode:
        return _camera(f"camera:{text}")
    if text.partition(":")[0] == "camera":
        return _camera(text)
    if text.partition(":")[0] == "screen" and not mode:
        return _screen(text)
    kind, colon, device = text.partition(":")
    if colon and kind in DEVICE_FORMATS and not mode:
        if not device:
            raise ValueError(f"{text} names no device, expected FORMAT:NAME, for example lavfi:testsrc2")
        return LiveSource("device", device, kind)
    return LiveSource("file", str(video_path(text)))


def is_web_address(target: str) -> bool:
    """Whether a source's address is one of the web."""
    return target.partition("://")[0].lower() in ("http", "https")


def refuse_unchecked(source: LiveSource) -> None:
    """Raise ValueError for what FFmpeg connects to itself, if addresses are to be checked: nobody would check them."""
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


def _screen(text: str) -> LiveSource:
    number = text.removeprefix("screen").removeprefix(":") or "0"
    if not number.isdecimal():
        raise ValueError(f"{text} names no screen, expected screen or screen:N with N from 0")
    if sys.platform == "darwin":
        return LiveSource("device", f"Capture screen {number}:none", "avfoundation")
    display = os.environ.get("DISPLAY", "")
    if not display:
        raise ValueError(f"{text}: there is no X display to watch; start it on a desktop, or set DISPLAY")
    return LiveSource("device", f"{display.partition('.')[0]}.{number}", "x11grab")
