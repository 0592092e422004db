"""Opens video files with PyAV, and says in one line why one cannot be read."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import av

_LISTS = {"hls", "concat", "dash", "sdp"}  # name other files: only the one that was asked for is read


def video_path(path: str | Path) -> Path:
    """A path to an existing file, `~` expanded.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a regular file, or empty.
    """
    path = Path(path)
    with suppress(RuntimeError):  # ~ without a home folder stands for itself
        path = path.expanduser()
    if not path.exists():
        raise FileNotFoundError(f"no video file {path}")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, expected a video file")
    if not path.is_file():  # a pipe or a device would be waited for, and could be read only once
        raise ValueError(f"{path} is not a file but a pipe or device; read it with python -m mlx_smolvlm.watch")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty, expected a video file")
    return path


@contextmanager
def open_video(path: Path, *, hardware: bool = False) -> Iterator[tuple["av.container.InputContainer", Any]]:
    """The container and its first video stream; `hardware` asks for VideoToolbox and falls back to software.

    Raises:
        ValueError: nothing that FFmpeg reads as a video.
    """
    import av  # slow to import, and most prompts have no video

    options: dict[str, Any] = {"container_options": {"protocol_whitelist": "file"}}  # a file never leads to the network
    if hardware:
        from av.codec.hwaccel import HWAccel

        options["hwaccel"] = HWAccel("videotoolbox", allow_software_fallback=True)
    try:
        try:
            container = av.open(f"file:{path}", **options)
        except (RuntimeError, NotImplementedError):  # this machine has no such decoder
            if not hardware:
                raise
            options.pop("hwaccel")
            container = av.open(f"file:{path}", **options)
    except MemoryError:
        raise
    except Exception as error:  # hostile bytes make demuxers raise anything
        raise ValueError(f"{path} is not a video file that FFmpeg can read ({reason(error)})") from None
    with container:
        if container.format.name.endswith("_pipe") or container.format.name == "image2":
            raise ValueError(f"{path} is an image, not a video; pass it with --image (in Python images=)")
        if container.format.name in _LISTS:
            raise ValueError(f"{path} is a list of other files ({container.format.long_name}); pass the video itself")
        stream = film_stream(container, str(path))
        stream.thread_type = "AUTO"
        yield container, stream


def film_stream(container: "av.container.InputContainer", name: str) -> Any:
    """The first video stream that is no cover image. Raises ValueError if there is none that can be decoded."""
    from av.stream import Disposition

    films = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not films:
        cover = ", and the image of a cover" if container.streams.video else ""
        raise ValueError(f"{name} has no video stream, only {container.format.long_name} data{cover}")
    if films[0].codec_context is None:
        raise ValueError(f"{name} has a video stream in a format that FFmpeg cannot decode")
    return films[0]


def packets(container: "av.container.InputContainer", stream: Any, path: Path) -> Iterator[Any]:
    """The stream's packets in file order, then the empty one that drains the decoder; raises ValueError on damage."""
    try:
        yield from demuxed(container, stream)
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"{path} is damaged: {reason(error)}") from None


def demuxed(container: "av.container.InputContainer", *streams: Any) -> Iterator[Any]:
    """The packets of streams in file order, then empty ones that drain the decoders.

    PyAV notes a file's streams when it opens it. At the end it looks in vain for those that began later, as in MPEG-TS.
    """
    with suppress(IndexError):
        yield from container.demux(*streams)


def decoded(packet: Any) -> list[Any]:
    """The frames that a packet completes; none if it is damaged: hostile bytes make decoders raise anything."""
    try:
        return list(packet.decode())
    except MemoryError:
        raise
    except Exception:
        return []


def reason(error: Exception) -> str:
    """FFmpeg's message for an error, in one line."""
    return getattr(error, "strerror", None) or " ".join(str(error).split())
