"""What the bytes of a file say that FFmpeg does not: how much of it is there, and what it is if it is no video."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_MP4_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"mfra", b"sidx", b"styp", b"meta"}
_MP4_BOXES |= {b"uuid", b"pnot", b"emsg", b"udta"}
_EBML, _SEGMENT = b"\x1aE\xdf\xa3", b"\x18S\x80g"
_JPEG = b"\xff\xd8\xff"
_STREAMED = 0xFFFFFF00  # sizes from here on stand for "not known"


def missing_part(path: Path) -> str | None:
    """How much of a file is there, if its headers state a size that it does not have: "2.1 of 4.0 MB are there"."""
    size = path.stat().st_size
    with path.open("rb") as file:
        stated = _stated_bytes(file)
    return f"{_megabytes(size)} of {_megabytes(stated)} MB are there" if stated > size else None


def unread_recordings(path: Path) -> str | None:
    """What is not read of a file of MP4's kind that holds several recordings one after the other."""
    with path.open("rb") as file:
        count = sum(kind == b"moov" for kind, _, _ in _boxes(file))
    return f"{count} MP4 files lie in it one after the other, and only the first can be read" if count > 1 else None


def holds_stills_only(path: Path) -> bool:
    """Whether a file of MP4's kind holds images (HEIC, AVIF) and no film, or is a JPEG of several images."""
    with path.open("rb") as file:
        kinds = {kind for kind, _, _ in _boxes(file)}
        file.seek(0)
        head = file.read(65536)
    if head.startswith(_JPEG):
        return b"MPF\0" in head  # of multi-picture files; motion JPEG has none
    return b"ftyp" in kinds and b"meta" in kinds and not kinds & {b"moov", b"moof"}


def what_else(path: Path, reason: str) -> str:
    """What a file that FFmpeg does not read is instead, to go on after "is not a video file"."""
    with path.open("rb") as file:
        head = file.read(1024)
        kinds = [kind for kind, _, _ in _boxes(file)]
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return " but a web page; use the address of the video itself"
    if head.startswith(b"version https://git-lfs"):
        return " but a Git LFS pointer; run git lfs pull"
    if head.startswith(b"%PDF"):
        return " but a PDF document; export its pages as images"
    if b"moov" not in kinds and b"moof" not in kinds and {b"ftyp", b"mdat"} & set(kinds):
        part = missing_part(path)
        cause = f"only {part}" if part else "its recording was not finished, or the end of it is missing"
        return f" that can be read: its index (moov) is missing, {cause}; get a whole copy"
    part = missing_part(path)
    return f" that FFmpeg can read ({reason}{f'; only {part}' if part else ''})"


def begins_without_index(head: bytes) -> bool:
    """Whether an MP4 file that begins like this has its index behind the frames."""
    offset = 0
    while len(kind := head[offset + 4 : offset + 8]) == 4 and kind in _MP4_BOXES - {b"moov", b"moof"}:
        if kind == b"mdat":
            return True
        offset += max(8, int.from_bytes(head[offset : offset + 4], "big"))
    return False


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """The outermost boxes of an MP4 file: kind, start and stated size; nothing in other files."""
    end = file.seek(0, 2)
    start = 0
    while start + 8 <= end:
        file.seek(start)
        header = file.read(16)
        size, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if size == 1 and len(header) == 16:
            size = int.from_bytes(header[8:], "big")
        if kind not in _MP4_BOXES or (size < 8 and size != 0):
            return
        yield kind, start, size or end - start  # 0: to the end of the file
        start += size or end


def _stated_bytes(file: BinaryIO) -> int:
    """How long a file of MP4's, AVI's or Matroska's kind should be; 0 if it does not say."""
    last = 0
    for _, start, size in _boxes(file):
        last = start + size
    if last:
        return last
    file.seek(0)
    head = file.read(64)
    if head[:4] == b"RIFF" and len(head) >= 12:
        size = int.from_bytes(head[4:8], "little")
        return 8 + size if size < _STREAMED else 0
    if head[:4] == _EBML:
        _, first, length = _ebml_size(head, 4)
        segment = first + length
        if head[segment : segment + 4] == _SEGMENT:
            is_known, content, length = _ebml_size(head, segment + 4)
            return content + length if is_known else 0
    return 0


def _ebml_size(data: bytes, offset: int) -> tuple[bool, int, int]:
    """Whether a length of Matroska is known, where its content begins, and how long it is."""
    width = 9 - data[offset].bit_length() if offset < len(data) and data[offset] else 8
    value = int.from_bytes(data[offset : offset + width], "big") & (1 << 7 * width) - 1
    return value != (1 << 7 * width) - 1, offset + width, value


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.3g}"
