"""SOURCE -> an open video: files, cameras and other devices, pipes and streams. PyAV, no MLX.

A source is what a person names on a command line, so it may be on the local network, as cameras are. What the source
itself names (a playlist, a redirect) is read from the network only, never from this machine's files.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ...options import DEFAULT_POLICY
from ..connections import Patience, Stalled
from ..urls import FetchError, check_size
from ..video.container import film_stream, is_image_format, open_video, reason
from ..video.content import begins_without_index
from .naming import HLS_PLAYLIST, NETWORK_PROTOCOLS, LiveSource, is_web_address, refuse_unchecked
from .playlist_files import PlaylistFiles
from .playlists import variant_in, variant_of
from .transport import HeardFile, ServerRefusal, open_http, open_pipe, open_socket

if TYPE_CHECKING:
    import av

MAX_DOWNLOAD_BYTES = 2 * 1024**3  # of a file behind a web address
PLAYLIST_FORMATS = ("hls", "dash")
PLAYLIST_TYPES = ("mpegurl", "dash+xml")
RTSP_STEP_S = 0.3  # RTSP can go on after a read was given up, so that a closed source need not be waited for


@dataclass(frozen=True)
class OpenSource:
    """A container with its best video stream; `is_live`: its pace is its own, and what is not read is lost."""

    container: "av.container.InputContainer"
    stream: Any
    is_live: bool

    @property
    def has_times(self) -> bool:
        """Whether the format states times; of others (motion JPEG, bare H.264) FFmpeg makes them up."""
        from av.format import Flags

        is_untimed = Flags(self.container.format.flags) & Flags.no_timestamps
        return not is_untimed and not is_image_format(self.container.format.name)


@contextmanager
def open_live_source(
    source: LiveSource,
    patience: Patience,
    expect_nothing: Callable[[bool], None] = lambda _: None,
    note_data: Callable[[], None] = lambda: None,
    wanted_edge: int = 512,
) -> Iterator[OpenSource]:
    """Open a source once.

    Args:
        source: from `naming.read_source`.
        patience: how long to wait, and whether it is still wanted. FFmpeg's own connections (kind "stream") are
            waited for until its time is up.
        expect_nothing: called with True and then with False around a download, which may take its time.
        note_data: called when bytes come.
        wanted_edge: the longest edge of a frame that is of use: of several variants, the smallest one that has it.

    Raises:
        ValueError: nothing that FFmpeg reads as a video.
        OSError: a source that is not there, or that stalls (`Stalled`).
        Closed: no longer wanted.
    """
    import av

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
            file, is_file = _http_file(source, opened, patience, expect_nothing, note_data, wanted_edge)
        elif source.kind == "stream" and is_web_address(source.target):
            file = _playlist(source, patience, note_data, wanted_edge)
        if not isinstance(file, str | PlaylistFiles) and not is_file:
            file = HeardFile(file, note_data)
        container = opened.enter_context(_container(source, file, patience))
        if container.format.name in PLAYLIST_FORMATS:  # a recording is given as fast as it is read
            is_file = container.duration is not None
        if is_file and is_image_format(container.format.name):
            raise ValueError(f"{source.name} is an image, not a video")
        stream = film_stream(container, source.name)
        if container.format.name in PLAYLIST_FORMATS:
            from av.stream import Discard

            for other in container.streams:  # is not downloaded
                if other is not stream:
                    other.discard = Discard.all
        stream.thread_type = "SLICE"  # threads by frame would hold frames back
        try:
            yield OpenSource(container, stream, not is_file)
        except av.FFmpegError:
            if isinstance(file, HeardFile) and begins_without_index(file.head):
                raise _index_at_the_end(source) from None
            raise


def _http_file(
    source: LiveSource,
    opened: ExitStack,
    patience: Patience,
    expect_nothing: Callable[[bool], None],
    note_data: Callable[[], None],
    wanted_edge: int,
) -> tuple[Any, bool]:
    """What to read, and whether it is a file: one is downloaded first, as its index may be at the end."""
    with ExitStack() as connection:
        body, length, media_type = connection.enter_context(
            open_http(source.target, patience, source.policy or DEFAULT_POLICY)
        )
        if any(playlist in media_type.lower() for playlist in PLAYLIST_TYPES):
            refuse_unchecked(source)
            if "dash" in media_type.lower():
                return body.address, False
            variant = variant_in(body, source.target, wanted_edge)
            return PlaylistFiles(variant, patience, source.policy or DEFAULT_POLICY, note_data), False
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


def _playlist(
    source: LiveSource, patience: Patience, note_data: Callable[[], None], wanted_edge: int
) -> PlaylistFiles | str:
    """An HLS playlist with what it names; of a DASH manifest the address after all redirects, as FFmpeg connects to
    what is in it. Raises what `open_http` raises."""
    policy = source.policy or DEFAULT_POLICY
    if urlsplit(source.target).path.lower().endswith(HLS_PLAYLIST):
        return PlaylistFiles(variant_of(source.target, patience, wanted_edge, policy), patience, policy, note_data)
    with open_http(source.target, patience, policy) as (body, _, _):
        return body.address


@contextmanager
def _container(source: LiveSource, file: Any, patience: Patience) -> Iterator["av.container.InputContainer"]:
    import av

    options: dict[str, str] = {}
    arguments: dict[str, Any] = {}
    if source.kind != "device":
        options["protocol_whitelist"] = NETWORK_PROTOCOLS  # for what a playlist names
        options["analyzeduration"] = "1000000"  # microseconds; FFmpeg's own five seconds would come before any frame
        if isinstance(file, HeardFile):
            options["fpsprobesize"] = "0"  # twenty frames of a slow camera are a minute
            untimed = file.untimed_format()
            if untimed is not None:  # a second of the 25 frames that FFmpeg assumes is as long
                options["analyzeduration"] = "1"
                arguments["format"] = untimed or None  # else it waits for more of what may be one image
    if isinstance(file, PlaylistFiles):
        options |= {"http_persistent": "0", "http_multiple": "0"}  # FFmpeg would look for connections of its own
        arguments |= {"format": "hls", "io_open": file.open}
        arguments["timeout"] = (patience.stall_timeout_s, patience.stall_timeout_s)
        file = file.address
    elif isinstance(file, str):
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
        if isinstance(error, FetchError | ServerRefusal | Stalled):
            raise
        if source.kind == "stream" and waited_s >= patience.stall_timeout_s:  # given up, whatever the error is called
            raise Stalled(f"nothing came for {patience.stall_timeout_s:g} s") from None
        raise _refusal(source, error, file.head if isinstance(file, HeardFile) else b"") from None
    with container:
        yield container


def _refusal(source: LiveSource, error: Exception, head: bytes) -> Exception:
    """The error for a source that FFmpeg does not open, and that begins like this."""
    import av

    if begins_without_index(head):
        return _index_at_the_end(source)
    if source.device_format and not isinstance(error, av.FFmpegError):
        return ValueError(f"{source.name}: FFmpeg has no {source.device_format} devices on this system")
    if isinstance(error, OSError) and source.kind in ("device", "stream"):
        return OSError(f"{source.name} cannot be opened ({reason(error)})")
    return ValueError(f"{source.name} is not a video that FFmpeg can read ({reason(error)})")


def _index_at_the_end(source: LiveSource) -> ValueError:
    return ValueError(
        f"{source.name} is an MP4 file whose index is at its end, so it cannot be read from a pipe; pass the file "
        "itself (its name, or - < FILE), or move its index: ffmpeg -i FILE -c copy -movflags +faststart NEW"
    )
