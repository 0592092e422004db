"""What a file holds, told by its first bytes and not by its name. Standard library only."""

import os
import re
import stat
import struct
from collections import Counter
from contextlib import suppress
from enum import Enum
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from .urls import is_url, path_of_file_url

# Of what is at an address, or not there yet, or broken: all others are told by their content.
IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("apng", "avif", "bmp", "gif", "heic", "heif", "hif", "ico", "jfif", "jp2", "jpe", "jpeg", "jpg", "mpo"),
        *("pbm", "pgm", "png", "pnm", "ppm", "tga", "tif", "tiff", "webp"),
    )
)
VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3g2", "3gp", "asf", "avi", "flv", "m2ts", "m2v", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts", "mxf"),
        *("ogv", "ts", "vob", "webm", "wmv", "y4m"),
    )
)

_HEAD_BYTES = 1024
_SHOWN_KINDS = 8
_IMAGES = (
    *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a"),
    *(b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  \r\n\x87\n"),  # JPEG 2000, bare and in its container
)
_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_PNM = re.compile(rb"P[1-6Ff]\s+[#\d]")
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes of the second header, by which versions are told apart
_RAW_PHOTOS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\x00", b"\x00MRM", b"FOVb")
_VIDEOS = (
    *(b"\x1aE\xdf\xa3", b"FLV\x01", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b".RMF", b"YUV4MPEG2", b"DKIF"),
    *(b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"\x06\x0e\x2b\x34"),  # MPEG, MXF
    *(b"\x00\x00\x00\x01\x67", b"\x00\x00\x00\x01\x27", b"\x00\x00\x00\x01\x40\x01"),  # bare H.264 and HEVC
)
_OGG_VIDEO = re.compile(rb"\x80theora|OVP80|fishead|BBCD")
_QUICKTIME = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # as a first box, from before there was "ftyp"
_STILL_BRANDS = frozenset(
    (b"avif", b"avis", b"mif1", b"msf1", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
)
_AUDIO_BRANDS = (b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B ")
_PREVIEW, _SUBFILES, _DNG_VERSION = 254, 330, 50706  # TIFF's tags
_RAW_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3fr", "arw", "cr2", "dcr", "dng", "erf", "fff", "iiq", "kdc", "mef", "mos", "nef", "nrw", "pef", "rwl"),
        *("sr2", "srf", "srw"),
    )
)


class FileKind(Enum):
    """What a file holds. `UNKNOWN` also stands for what is no file, or may not be read."""

    PICTURE = "image"
    VIDEO = "video"
    RAW_PHOTO = "camera raw"  # most begin with a small preview
    EMPTY = "empty"
    UNKNOWN = "unknown"


_OPEN = (FileKind.EMPTY, FileKind.UNKNOWN)


def file_kind(path: str | os.PathLike[str]) -> FileKind:
    """What a file holds, by its first bytes. Pipes and devices are not read, as they could block."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return FileKind.UNKNOWN
        with open(path, "rb", buffering=0) as file:
            head = file.read(_HEAD_BYTES)
            if head.startswith(_TIFF):
                directory = _first_directory(head, file.fileno())
                is_raw = head[8:10] == b"CR" or _DNG_VERSION in directory
                is_raw = is_raw or bool(directory.get(_PREVIEW, 0) & 1 and _SUBFILES in directory)
                is_raw = is_raw or Path(path).suffix.lower() in _RAW_SUFFIXES
                return FileKind.RAW_PHOTO if is_raw else FileKind.PICTURE
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return FileKind.UNKNOWN
    return _kind_of(head)


def is_video(source: str) -> bool:
    """Whether a path or an address is a video: a file by its first bytes, or by its suffix where they leave it open.

    Else it is taken for an image, as all animations are.
    """
    if source[:5].lower() == "data:":
        return source[5:11].lower() == "video/"
    path = Path(source)
    if source[:5].lower() == "file:":
        with suppress(ValueError):  # of another computer, as is said where it is read
            path = Path(path_of_file_url(source, source))
    elif is_url(source):
        return PurePosixPath(urlsplit(source).path).suffix.lower() in VIDEO_SUFFIXES
    kind = file_kind(os.path.expanduser(path))
    return path.suffix.lower() in VIDEO_SUFFIXES if kind in _OPEN else kind is FileKind.VIDEO


def is_media_file(path: Path) -> bool:
    """Whether a file is an image or a video, by its content or its suffix."""
    is_named = path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES
    return path.is_file() and (is_named or file_kind(path) not in _OPEN)


def is_picture_of_folder(path: Path, skipped: Counter[str]) -> bool:
    """Whether a file in a folder is one of its images; `skipped` counts the others, by suffix or content.

    A broken image counts as one, since the error that it leads to says what is wrong.
    """
    kind, suffix = file_kind(path), path.suffix.lower()
    if kind is FileKind.PICTURE or (kind in _OPEN and suffix in IMAGE_SUFFIXES):
        return True
    is_disguised = kind is FileKind.VIDEO and suffix not in VIDEO_SUFFIXES
    skipped[suffix[1:].upper() if suffix[1:].isalnum() and not is_disguised else kind.value] += 1
    return False


def skipped_note(skipped: Counter[str]) -> str:
    """One line about files that were skipped; empty if none were."""
    count, kinds = skipped.total(), skipped.most_common(_SHOWN_KINDS)
    named = [f"{number} {kind}" for kind, number in kinds]
    if others := count - sum(number for _, number in kinds):
        named.append(f"{others} other{'s' * (others != 1)}")
    return f"skipped {count} file{'s' * (count != 1)}: {', '.join(named)}" if count else ""


def is_image(head: bytes) -> bool:
    """Whether the first 1024 bytes of a file are those of an image or a raw photo in TIFF's form."""
    return head.startswith(_TIFF) or _kind_of(head) is FileKind.PICTURE


def is_pdf(head: bytes) -> bool:
    """Whether the first 1024 bytes of a file are those of a PDF, whose signature may stand behind other bytes."""
    return b"%PDF-" in head and not is_image(head)


def is_text(head: bytes) -> bool:
    """Whether the first bytes of a file are text."""
    return re.search(rb"[\x00-\x08\x0e-\x1f\xf8-\xff]", head) is None  # neither ASCII nor UTF-8 has these


def other_content(head: bytes, expected: str) -> str:
    """Say what bytes that are no image seem to be, and what to do; `expected` says what would be right."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    kind = _kind_of(head)
    if kind is FileKind.EMPTY:
        return f"empty; expected {expected}"
    if kind is FileKind.RAW_PHOTO:
        return "a raw photo of a kind that is not read; export it as JPEG or PNG"
    if kind is FileKind.VIDEO:
        return 'a video, not an image; pass it with --video (in Python videos=, in a list of batch as "video")'
    if is_pdf(head):
        return "a PDF, not an image; read it with python -m mlx_smolvlm.document, or export its pages as PNG"
    if head.startswith((b"%!PS", b"8BPS")):
        return "a PostScript or Photoshop document, not an image; export it as PNG"
    if b"<svg" in text:
        return "an SVG drawing, not an image; render it to PNG first"
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return "a web page, not an image; use the address of the image itself"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the image itself; run git lfs pull"
    return f"{'text, not an image' if is_text(head) else 'not an image of a known format'}; expected {expected}"


def is_tga(head: bytes) -> bool:
    """Whether a file may be a Targa image, which has no signature: each field of its header must make sense."""
    if len(head) < 18:
        return False
    color_map, image_type, depth, descriptor = head[1], head[2], head[16], head[17]
    depths = {1: (8,), 2: (16, 24, 32), 3: (8, 16)}.get(image_type & ~8)  # 8: compressed
    if depths is None or depth not in depths or image_type & ~0x0B or descriptor & 0xC0:
        return False
    if color_map != (image_type & ~8 == 1):
        return False
    map_depth = head[7]
    return 0 not in struct.unpack("<HH", head[12:16]) and (map_depth in (15, 16, 24, 32) if color_map else True)


def _kind_of(head: bytes) -> FileKind:
    if not head:
        return FileKind.EMPTY
    if head.startswith(_RAW_PHOTOS):
        return FileKind.RAW_PHOTO
    if head.startswith(_VIDEOS) or _is_transport_stream(head):
        return FileKind.VIDEO
    if head.startswith(_IMAGES) or _PNM.match(head):
        return FileKind.PICTURE
    if head[:4] == b"RIFF":
        return {b"WEBP": FileKind.PICTURE, b"AVI ": FileKind.VIDEO}.get(head[8:12], FileKind.UNKNOWN)
    if head[:4] == b"OggS":
        return FileKind.VIDEO if _OGG_VIDEO.search(head) else FileKind.UNKNOWN
    if head[4:8] == b"ftyp":
        return _kind_of_brands(head)
    if head[4:8] in _QUICKTIME:
        return FileKind.VIDEO
    is_bmp = head[:2] == b"BM" and len(head) >= 18 and struct.unpack("<I", head[14:18])[0] in _BMP_HEADERS
    is_icon = head[:4] == b"\x00\x00\x01\x00" and head[4:6] != b"\x00\x00" and head[9:10] == b"\x00"
    return FileKind.PICTURE if is_bmp or is_icon or is_tga(head) else FileKind.UNKNOWN


def _kind_of_brands(head: bytes) -> FileKind:
    """MP4 and its relatives, by the brands that they name first."""
    end = min(struct.unpack(">I", head[:4])[0], len(head))
    major = head[8:12]
    brands = {major, *(head[start : start + 4] for start in range(16, end, 4))}
    if major in (b"crx ", *_AUDIO_BRANDS):
        return FileKind.RAW_PHOTO if major == b"crx " else FileKind.UNKNOWN
    return FileKind.PICTURE if brands & _STILL_BRANDS else FileKind.VIDEO


def _is_transport_stream(head: bytes) -> bool:
    """MPEG-TS, bare or with the time codes of a camcorder (.m2ts): every packet begins with a G."""
    return any(
        head[first::length][:3] == b"GGG" and len(head) > first + 2 * length for first, length in ((0, 188), (4, 192))
    )


def _first_directory(head: bytes, descriptor: int) -> dict[int, int]:
    """Tags of a TIFF file's first image with their values, as far as these are numbers that stand there."""
    order = "<" if head[:2] == b"II" else ">"
    offset = struct.unpack(f"{order}I", head[4:8].ljust(4, b"\x00"))[0]
    count = os.pread(descriptor, 2, offset)
    if head[2:4] not in (b"*\x00", b"\x00*") or len(count) < 2:
        return {}
    entries = os.pread(descriptor, 12 * struct.unpack(f"{order}H", count)[0], offset + 2)
    tags = {}
    for start in range(0, len(entries) - 11, 12):
        tag, kind = struct.unpack(f"{order}HH", entries[start : start + 4])
        form, size = ("H", 2) if kind == 3 else ("I", 4)
        tags[tag] = struct.unpack(f"{order}{form}", entries[start + 8 : start + 8 + size])[0]
    return tags
