"""Whether a file or address is a video or an image, for media that are named without an option."""

from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from ..media.urls import is_url

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3gp", "avi", "flv", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts", "ogv", "ts", "webm", "wmv"),
    )
)
IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("apng", "avif", "bmp", "gif", "heic", "heif", "hif", "ico", "jfif", "jp2", "jpe", "jpeg", "jpg", "mpo"),
        *("pbm", "pgm", "png", "pnm", "ppm", "tga", "tif", "tiff", "webp"),
    )
)
_HEAD_BYTES = 64
_VIDEO_STARTS = (b"\x1aE\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"FLV\x01", b"OggS")
_IMAGE_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*", b"\x00\x00\x00\x0cjP  ")
_STILL_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")


def is_video(source: str) -> bool:
    """By the first bytes of a file, or by the suffix where they leave it open. An animation is an image."""
    if source[:5].lower() == "data:":
        return source[5:11].lower() == "video/"
    if is_url(source) and source[:5].lower() != "file:":
        return PurePosixPath(urlsplit(source).path).suffix.lower() in VIDEO_SUFFIXES
    path = Path(source).expanduser()
    by_content = _by_content(path) if path.is_file() else None  # a pipe can be read only once
    return Path(source).suffix.lower() in VIDEO_SUFFIXES if by_content is None else by_content


def is_media_file(path: Path) -> bool:
    """Whether a file is an image or a video, by its content or its suffix."""
    is_known = path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES
    return path.is_file() and (is_known or _by_content(path) is not None)


def _by_content(path: Path) -> bool | None:
    """True for a video, False for an image, None if the first bytes are neither's. A pipe can be read only once."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except (OSError, ValueError):
        return None
    if head[4:8] == b"ftyp":
        return head[8:12] not in _STILL_BRANDS
    if head.startswith(_IMAGE_STARTS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return False
    is_riff = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    return True if is_riff or head.startswith(_VIDEO_STARTS) or head[4:8] in (b"moov", b"mdat", b"wide") else None
