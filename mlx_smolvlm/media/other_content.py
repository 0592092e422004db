"""What a file that is no image holds instead, by its first bytes."""

import re

VIDEO_SIGNATURES = (b"\x1aE\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"FLV\x01", b"OggS")  # Matroska, MPEG

RAW_SIGNATURES = (b"IIRO", b"IIRS", b"MMOR", b"IIU\x00", b"FUJIFILMCCD-RAW", b"FOVb")  # Olympus, Panasonic, Fuji, Sigma


RAW_SIGNATURES = (b"IIRO", b"IIRS", b"MMOR", b"IIU\x00", b"FUJIFILMCCD-RAW", b"FOVb")  # Olympus, Panasonic, Fuji, Sigma


def is_text(head: bytes) -> bool:
    """Whether the first bytes of a file are text."""
    return re.search(rb"[\x00-\x08\x0e-\x1f\xf8-\xff]", head) is None  # neither ASCII nor UTF-8 has these


def other_content(head: bytes, expected: str) -> str:
    """Say what bytes that are no image seem to be, and what to do; `expected` says what would be right."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not head:
        return f"empty; expected {expected}"
    if head.startswith(RAW_SIGNATURES) or head[4:12] == b"ftypcrx ":
        return "a raw photo of a kind that is not read; export it as JPEG or PNG"
    video_box = head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide") or head[8:12] == b"AVI "
    if video_box or head.startswith(VIDEO_SIGNATURES):
        return 'a video, not an image; pass it with --video (in Python videos=, in a list of batch as "video")'
    if head.startswith((b"%PDF", b"%!PS", b"8BPS")):
        return "a PDF, PostScript or Photoshop document, not an image; export it as PNG"
    if b"<svg" in text:
        return "an SVG drawing, not an image; render it to PNG first"
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return "a web page, not an image; use the address of the image itself"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the image itself; run git lfs pull"
    return f"{'text, not an image' if is_text(head) else 'not an image of a known format'}; expected {expected}"
