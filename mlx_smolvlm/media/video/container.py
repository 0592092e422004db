"""Opens video files with PyAV, and says in one line why one cannot be read."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .content import holds_stills_only, what_else

if TYPE_CHECKING:
    import av

ANIMATIONS = {"gif", "apng", "mjpeg", "jpegxl_anim", "webp"}  # formats of which a single frame is an image
IMAGE_CODECS = {"mjpeg", "png", "bmp", "gif", "webp", "tiff", "jpegls", "jpeg2000"}
_IMAGE_FORMATS = {"image2", "ico", "fits", "tty"}
PASS_AS_IMAGE = "pass it with --image (in Python images=)"
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
    """The container and its best video stream; `hardware` asks for VideoToolbox and falls back to software.

    Raises:
        ValueError: nothing that FFmpeg reads as a video.
    """
    import av  # slow to import, and most prompts have no video

    if holds_stills_only(path):
        raise ValueError(f"{path} is an image, not a video; {PASS_AS_IMAGE}")
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
    except MemoryError:  # nothing of size has been read yet: it is what a header claims
        raise ValueError(f"{path} is damaged: it asks for more memory than there is") from None
    except Exception as error:  # hostile bytes make demuxers raise anything
        raise ValueError(f"{path} is not a video file{what_else(path, reason(error))}") from None
    with container:
        if is_image_format(container.format.name):
            raise ValueError(f"{path} is an image, not a video; {PASS_AS_IMAGE}")
        if container.format.name in _LISTS:
            raise ValueError(f"{path} is a list of other files ({container.format.long_name}); pass the video itself")
        stream = film_stream(container, str(path))
        stream.thread_type = "AUTO"
        yield container, stream


def film_stream(container: "av.container.InputContainer", name: str) -> Any:
    """The best video stream: what the file marks as its default, then the largest; covers and stills are none.

    Raises:
        ValueError: there is none, or none that can be decoded.
    """
    films = [stream for stream in container.streams.video if not stream.disposition & _no_film()]
    if not films:
        cover = ", and the image of a cover" if container.streams.video else ""
        raise ValueError(f"{name} has no video stream, only {container.format.long_name} data{cover}")
    known = [stream for stream in films if stream.codec_context is not None]
    if not known:
        raise ValueError(f"{name} has a video stream in a format that FFmpeg cannot decode")
    return max(known, key=_rank)


def is_image_format(format_name: str) -> bool:
    """Whether a format of FFmpeg holds images."""
    return format_name.endswith("_pipe") or format_name in _IMAGE_FORMATS


def _no_film() -> Any:
    from av.stream import Disposition

    return Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image | Disposition.dependent


def _rank(stream: Any) -> tuple[bool, bool, int]:
    """How good a stream is: of covers of songs and thumbnails, MP4 knows only that they are single ones."""
    from av.stream import Disposition

    is_single = stream.frames == 1 and stream.codec_context.name in IMAGE_CODECS
    return not is_single, bool(stream.disposition & Disposition.default), stream.width * stream.height


def may_jump(container: "av.container.InputContainer") -> bool:
    """Whether the format is made to be cut and joined, so that its clock may jump."""
    from av.format import Flags

    return bool(Flags(container.format.flags) & Flags.ts_discont)


def sound_beside(container: "av.container.InputContainer") -> list[Any]:
    """The stream of sound by which gaps are told from jumps of the clock, in formats where it may jump."""
    audio = container.streams.audio
    return [audio[0]] if audio and (may_jump(container) or container.format.name == "flv") else []


def refuse_stills(container: "av.container.InputContainer", stream: Any, frame_count: int, path: Path) -> None:
    """Raise ValueError for a single image that came as an animation or beside sound."""
    if frame_count > 1:
        return
    name = container.format.name
    if name in ANIMATIONS:
        raise ValueError(f"{path} is an image, not a video; {PASS_AS_IMAGE}")
    if container.streams.audio and stream.codec_context.name in IMAGE_CODECS:
        raise ValueError(f"{path} has no video stream, only sound and the image of a cover")


def packets(container: "av.container.InputContainer", streams: list[Any], path: Path) -> Iterator[Any]:
    """The streams' packets in file order, then empty ones that drain decoders; raises ValueError on damage."""
    try:
        yield from demuxed(container, *streams)
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
