"""Bad videos: one line and status 2 within ten seconds, and no thread or open file left behind."""

import os
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import pytest
from support.command_lines import assert_refused, run
from support.media import picture
from support.video_encoding import EVEN_MS, MILLISECOND, X264, X265, encode, pixels, sound
from support.video_files import FRAGMENTED, overwritten

from mlx_smolvlm.media.video.frames import read_frames
from mlx_smolvlm.media.video.probing import probe

FASTSTART = {"movflags": "faststart"}


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """The bytes of good files: MP4 with its index at the front, with it at the end, and Matroska."""
    folder = tmp_path_factory.mktemp("intact")
    X264(folder / "front.mp4", muxing=FASTSTART)
    X264(folder / "end.mp4")
    X264(folder / "clip.mkv")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def without_frames(path: Path) -> None:
    with av.open(str(path), "w", options=FRAGMENTED) as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.start_encoding()


def sound_only(path: Path, codec: str = "aac") -> None:
    with av.open(str(path), "w") as container:
        container.mux(sound(container.add_stream(codec, rate=48000), 1.0))


def heic(path: Path) -> None:
    """What HEIC files have of MP4: a list of boxes without an index of times."""
    picture("tiny").save(path, format="AVIF")
    path.write_bytes(path.read_bytes().replace(b"ftypavif", b"ftypheic"))


def blank(content: bytes, where: bytes, keep: int) -> bytes:
    """The file with zeros from `keep` bytes after a mark on."""
    start = content.index(where) + keep
    return content[:start] + bytes(len(content) - start)


# What writes the file: (path, intact files) -> None, and what the line must say.
REFUSED = {
    "empty": (lambda path, intact: path.touch(), "is empty, expected a video file"),
    "text": (lambda path, intact: path.write_text("holiday\n" * 100), "is not a video file"),
    "web page": (
        lambda path, intact: path.write_text("<!doctype html><html>404</html>"),
        "is not a video file but a web page; use the addr",
    ),
    "web page without a doctype": (
        lambda path, intact: path.write_text("\n<HTML>gone"),
        "is not a video file but a web page",
    ),
    "git lfs": (
        lambda path, intact: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n"),
        "is not a video file but a Git LFS pointer; run git lfs pull",
    ),
    "zeros": (lambda path, intact: path.write_bytes(bytes(100_000)), "is not a video file"),
    "folder": (lambda path, intact: path.mkdir(), "is a folder, expected a video file"),
    "pipe": (lambda path, intact: os.mkfifo(path), "a video is not read from a pipe"),
    "device": (lambda path, intact: path.symlink_to("/dev/zero"), "is not a file but a pipe or device"),
    "link to nothing": (lambda path, intact: path.symlink_to("nothing"), "no such file"),
    "png": (lambda path, intact: picture("tiny").save(path, format="PNG"), "an image, not a video"),
    "jpeg": (lambda path, intact: picture("tiny").save(path, format="JPEG"), "an image, not a video"),
    "webp": (lambda path, intact: picture("tiny").save(path, format="WEBP"), "an image, not a video"),
    "tiff": (lambda path, intact: picture("tiny").save(path, format="TIFF"), "an image, not a video"),
    "gif": (lambda path, intact: picture("tiny").save(path, format="GIF"), "an image, not a video"),
    "apng of one frame": (
        lambda path, intact: picture("tiny").save(path, format="PNG", save_all=True, default_image=False),
        "an image, not a video",
    ),
    "avif": (lambda path, intact: picture("tiny").save(path, format="AVIF"), "an image, not a video"),
    "jpeg 2000": (lambda path, intact: picture("tiny").save(path, format="JPEG2000"), "an image, not a video"),
    "icon": (lambda path, intact: picture("tiny").save(path, format="ICO"), "an image, not a video"),
    "ppm": (lambda path, intact: picture("tiny").save(path, format="PPM"), "an image, not a video"),
    "mpo": (
        lambda path, intact: picture("tiny").save(path, format="MPO", save_all=True, append_images=[picture("tiny")]),
        "an image, not a video",
    ),
    "heic": (lambda path, intact: heic(path), "an image, not a video"),
    "bmp": (lambda path, intact: picture("tiny").save(path, format="BMP"), "an image, not a video"),
    "cut in the index": (lambda path, intact: path.write_bytes(intact["front.mp4"][:1000]), "MB are there"),
    "cut before the index": (
        lambda path, intact: path.write_bytes(intact["end.mp4"][:-5000]),
        "its index (moov) is missing, only 0.0",
    ),
    "cut before the pictures end": (
        lambda path, intact: path.write_bytes(intact["end.mp4"][:40_000]),
        "its index (moov) is missing, only 0.04 of 0.0",
    ),
    "recording not finished": (
        lambda path, intact: path.write_bytes(intact["end.mp4"][: intact["end.mp4"].index(b"moov") - 4]),
        "its index (moov) is missing, its recording was not finished",
    ),
    "cut after the index": (
        lambda path, intact: path.write_bytes(intact["front.mp4"][: intact["front.mp4"].index(b"mdat") + 4]),
        "has a video stream without frames; is the file complete?",
    ),
    "no frames": (lambda path, intact: without_frames(path), "has a video stream without frames"),
    "sound only": (lambda path, intact: sound_only(path), "has no video stream"),
    "unknown codec": (
        lambda path, intact: path.write_bytes(intact["front.mp4"].replace(b"avc1", b"zzz1")),
        "in a format that FFmpeg cannot decode",
    ),
    "unknown codec in Matroska": (
        lambda path, intact: path.write_bytes(intact["clip.mkv"].replace(b"V_MPEG4/ISO/AVC", b"V_FUTURE/CODEC!")),
        "in a format that FFmpeg cannot decode",
    ),
    "pictures all zero": (
        lambda path, intact: path.write_bytes(blank(intact["front.mp4"], b"mdat", 4)),
        "no frame could be decoded; the file is damaged",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_without_frames_to_show_is_refused(generate, intact, tmp_path, kind):
    write, problem = REFUSED[kind]
    path = tmp_path / "clip.mp4"
    write(path, intact)
    result = generate("--video", path)
    assert_refused(result, problem)
    assert str(path) in result.err


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("clip.m3u8", HLS.format("other.ts")),
        ("clip.mp4", HLS.format("other.ts")),
        ("clip.m3u8", HLS.format("http://127.0.0.1:9/other.ts")),
        ("clip.ffconcat", "ffconcat version 1.0\nfile other.ts\n"),
        ("clip.mp4", "ffconcat version 1.0\nfile /etc/other.ts\n"),
        ("clip.sdp", "v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"),
    ],
)
def test_a_list_of_other_files_is_not_followed(generate, tmp_path, name, text):
    """It could name any file of this machine, and any host that this machine reaches."""
    X264(tmp_path / "other.ts")
    (tmp_path / name).write_text(text)
    assert_refused(generate("--video", tmp_path / name), f"{name} is ")


@pytest.mark.parametrize(("name", "codec"), [("song.mp3", "libmp3lame"), ("song.mp4", "aac")])
def test_a_cover_does_not_make_a_song_a_video(generate, tmp_path, name, codec):
    with av.open(str(tmp_path / name), "w") as container:
        audio, cover = container.add_stream(codec, rate=48000), container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 96, 64, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(pixels(0), format="rgb24")
        frame.pts = 0
        container.mux(cover.encode(frame) + cover.encode(None))
        container.mux(sound(audio, 1.0))
    assert_refused(generate("--video", tmp_path / name), "has no video stream")


@pytest.mark.filterwarnings("always")  # as on the command line
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_file_that_breaks_off_is_answered_from_what_is_there(generate, intact, tmp_path, share):
    path = tmp_path / "clip.mp4"
    whole = intact["front.mp4"]
    path.write_bytes(whole[: int(len(whole) * share)])
    result = generate("--video", path, "--fps", 8)
    assert result.status == 0
    assert result.err.startswith("warning: ")
    assert result.err.count("\n") == 1
    assert f"{path} is incomplete: " in result.err


@pytest.mark.filterwarnings("always")
def test_what_is_not_read_of_joined_mp4_files_is_said(generate, intact, tmp_path):
    """FFmpeg's reader, too, stops where the second one begins."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(2 * intact["front.mp4"])
    result = generate("--video", path)
    assert result.status == 0
    assert "2 MP4 files lie in it one after the other" in result.err


@pytest.mark.filterwarnings("always")
@pytest.mark.parametrize("name", ["front.mp4", "clip.mkv"])
def test_damage_in_the_middle_is_passed_over(generate, intact, tmp_path, name):
    path, whole = tmp_path / name, intact[name]
    path.write_bytes(overwritten(whole, 0.5) if b"mdat" in whole else whole[:30_000] + bytes(300) + whole[30_300:])
    result = generate("--video", path, "--fps", 8)
    assert result.status == 0
    assert result.err.count("\n") <= 1


@pytest.mark.parametrize(
    "write",
    [
        partial(X264, times=[0]),
        partial(X264, times=[5000], time_base=MILLISECOND),
        partial(encode, codec="mjpeg", pix_fmt="yuvj420p", times=[0]),
        partial(X265, times=[0], options={"x265-params": "log-level=none"}),
    ],
)
def test_a_video_of_one_frame_is_answered(generate, tmp_path, write):
    write(tmp_path / "clip.mkv")
    result = generate("--video", tmp_path / "clip.mkv", "--verbose")
    assert result.status == 0
    assert "1 frame " in result.err


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--start", 2), "start is 2 s, but "),
        (("--start", 1e9), "start is 1e+09 s, but "),
        (("--start", 1, "--end", 1), "expected an end after the start"),
        (("--start", 1.5, "--end", 0.5), "expected an end after the start"),
        (("--end", 0), "expected an end after the start"),
        (("--start", -1), "start is -1.0, expected seconds"),
        (("--end", -0.5), "end is -0.5, expected seconds"),
        (("--start", "nan"), "start is nan, expected seconds"),
        (("--end", "nan"), "end is nan, expected seconds"),
        (("--start", "inf"), "start is inf, expected seconds"),
        (("--start", "noon"), "invalid float value: 'noon'"),
        (("--start", 1.01, "--end", 1.02), "no frame between 1.01 and 1.02 s"),
        (("--fps", 0), "fps is 0.0, expected a positive number"),
        (("--fps", "nan"), "fps is nan, expected a positive number"),
        (("--max-frames", 0), "max_frames is 0, expected at least 1"),
    ],
)
def test_a_part_or_a_rate_that_makes_no_sense_is_refused(generate, intact, tmp_path, options, problem):
    path = tmp_path / "clip.mp4"
    path.write_bytes(intact["front.mp4"])
    assert_refused(generate("--video", path, *options), problem)


def test_times_count_from_the_first_frame(generate, tmp_path):
    """In a file whose clock starts at 5 s, too: from there on, its frames are shown for 2 s."""
    path = tmp_path / "late.mkv"
    X264(path, times=[time_ms + 5000 for time_ms in EVEN_MS], time_base=MILLISECOND)
    assert generate("--video", path, "--start", 1.5).status == 0
    assert_refused(generate("--video", path, "--start", 5), "start is 5 s, but ")


def test_one_bad_video_among_good_ones_is_named(generate, intact, tmp_path):
    (tmp_path / "good.mp4").write_bytes(intact["front.mp4"])
    (tmp_path / "bad.mp4").write_bytes(intact["front.mp4"][:1000])
    result = generate("--video", tmp_path / "good.mp4", "--video", tmp_path / "bad.mp4")
    assert_refused(result, str(tmp_path / "bad.mp4"))


def test_the_rate_of_a_file_does_not_matter(generate, tmp_path):
    """A thousand frames in a second, and one in five minutes."""
    for name, ticks in (("quick.mkv", Fraction(1, 1000)), ("slow.mkv", Fraction(300))):
        X264(tmp_path / name, times=range(12), time_base=MILLISECOND, edit=partial(spread, ticks_s=ticks))
        assert generate("--video", tmp_path / name).status == 0


def spread(packets: list[av.Packet], ticks_s: Fraction) -> list[av.Packet]:
    for packet in packets:
        for name in ("pts", "dts"):
            setattr(packet, name, int(getattr(packet, name) * ticks_s * 1000))
    return packets


def test_a_stream_that_begins_in_mid_file_is_no_error(monkeypatch, capsys, tmp_path):
    """PyAV drains a decoder for each stream, but knows those alone that it found when it opened the file."""
    X264(tmp_path / "clip.ts")
    content = bytearray((tmp_path / "clip.ts").read_bytes())
    whole = [image.tobytes() for image in read_frames(probe(tmp_path / "clip.ts"), [0, 20, 40])]
    starts = [place for place in range(0, len(content), 188) if content[place + 1 : place + 3] == b"\x41\x00"]
    content[starts[-2] + 1] = 0x5F  # one frame, of another stream
    path = tmp_path / "changes.ts"
    path.write_bytes(content)
    with av.open(str(path)) as container, pytest.raises(IndexError):
        list(container.demux(container.streams.video[0]))
    assert [image.tobytes() for image in read_frames(probe(path), [0, 20, 40])] == whole
    for command in (["generate", "--video"], ["watch", "--window", "5"]):
        result = run(monkeypatch, capsys, *command, path, "--max-tokens", "2")
        assert (result.status, bool(result.out)) == (0, True), result
