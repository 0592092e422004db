"""What a file holds is told by its first bytes."""

import os

import pytest

from mlx_smolvlm.media.images import load_image
from mlx_smolvlm.media.signatures import FileKind, file_kind, is_video


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x18ftyp3gp4\0\0\0\0isom3gp4", FileKind.VIDEO),
        (b"\0\0\0\x1cftypqt  \0\0\0\0qt  ", FileKind.VIDEO),
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heic", FileKind.PICTURE),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", FileKind.PICTURE),
        (b"\0\0\0\x18ftypcrx \0\0\0\x01crx ", FileKind.RAW_PHOTO),
        (b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42", FileKind.UNKNOWN),
        ((b"G" + bytes(187)) * 4, FileKind.VIDEO),
        ((bytes(4) + b"G" + bytes(187)) * 4, FileKind.VIDEO),
        (b"II*\0\x10\0\0\0CR\x02\0", FileKind.RAW_PHOTO),
        (b"IIU\0\x18\0\0\0", FileKind.RAW_PHOTO),
        (b"\x1aE\xdf\xa3", FileKind.VIDEO),
        (b"BMW is a car, and this is a text about it.", FileKind.UNKNOWN),
        (b"P1 is the first of them.", FileKind.UNKNOWN),
        (b"P5\n# a comment\n2 2\n255\n\0\0\0\0", FileKind.PICTURE),
        (b"GGG", FileKind.UNKNOWN),
        (bytes(1024), FileKind.UNKNOWN),
        (b"\0\0\x01\xba" + bytes(100), FileKind.VIDEO),
        (b"%PDF-1.7", FileKind.UNKNOWN),
        (b"", FileKind.EMPTY),
    ],
)
def test_kinds_by_their_first_bytes(tmp_path, head, kind):
    (tmp_path / "x.bin").write_bytes(head)
    assert file_kind(tmp_path / "x.bin") is kind


def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert file_kind(tmp_path / "pipe.png") is FileKind.UNKNOWN
    assert file_kind(tmp_path / "no such file") is FileKind.UNKNOWN


def test_what_is_no_targa_picture_is_not_called_a_damaged_one():
    for content in (bytes(100), b"\0\0\x02" + bytes(100), b"\0\x01\x02" + b"\x01" * 100):
        with pytest.raises(ValueError, match="not an image of a known format"):
            load_image(content)


def test_videos_are_told_by_content_wherever_they_are_named(tmp_path):
    """`batch` went by the ending of file:// and data: addresses, `generate` by that of file:// alone."""
    clip = tmp_path / "a clip"
    clip.write_bytes(b"\x1aE\xdf\xa3")
    assert is_video(str(clip)) and is_video(clip.as_uri()) and is_video("data:video/mp4;base64,AAAA")
    assert is_video("https://host/clip.webm?x=1") and is_video("missing.mp4") and is_video("file://elsewhere/clip.mp4")
    clip.write_bytes(b"GIF89a")
    assert not is_video(str(clip)) and not is_video(clip.as_uri()) and not is_video("data:image/png;base64,AAAA")
    (tmp_path / "text.mp4").write_bytes(b"BM is how this text begins")
    assert is_video(str(tmp_path / "text.mp4"))
