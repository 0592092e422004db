"""Small videos of every kind that people have: `VIDEO_FILES` maps a name to a suffix and what writes the file."""

import struct
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
from PIL import Image

from .video_encoding import (
    AV1,
    EVEN_MS,
    FPS,
    INTERLACED_MPEG2,
    MILLISECOND,
    MPEG2,
    MPEG4,
    NO_SCENE_CUTS,
    NUM_FRAMES,
    OPEN_MPEG2,
    SIZE,
    UNEVEN_MS,
    VP9,
    X264,
    encode,
    pixels,
    x264,
    x265,
)

TS_PACKET_BYTES = 188


def turned(mp4: bytes, degrees: int) -> bytes:
    """An MP4 file whose track asks to be shown turned clockwise, as phones write it."""
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    values = (cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30)
    matrix = mp4.index(b"tkhd") + 4 + 40  # version 0: flags 4, times and id 20, reserved and layer 16
    return mp4[:matrix] + struct.pack(">9i", *values) + mp4[matrix + 36 :]


def _turned(degrees: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        X264(path)
        path.write_bytes(turned(path.read_bytes(), degrees))

    return write


def _starts_later(path: Path) -> None:
    """An edit list that hides the first 18 frames: the file opens in the middle of its second group of pictures."""
    X264(path)
    mp4 = bytearray(path.read_bytes())
    entry = mp4.index(b"elst") + 12  # version and flags 4, one entry: duration, media time, rate
    duration, media_time = struct.unpack_from(">Ii", mp4, entry)
    timescale = struct.unpack_from(">I", mp4, mp4.index(b"mdhd") + 16)[0]
    struct.pack_into(">Ii", mp4, entry, duration * (NUM_FRAMES - 18) // NUM_FRAMES, media_time + 18 * timescale // FPS)
    path.write_bytes(mp4)


def _joined_late(path: Path, write: Callable[[Path], None]) -> None:
    """A broadcast recorded from the middle of a group of pictures on."""
    write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[len(whole) * 2 // 5 // TS_PACKET_BYTES * TS_PACKET_BYTES :])


def _two_parts(path: Path, second_start: int, second_size: tuple[int, int] = SIZE) -> None:
    """Two recordings in one file, the second one with times from `second_start` on, in frames."""
    half = NUM_FRAMES // 2
    X264(path, times=range(half))
    first = path.read_bytes()
    X264(path, times=range(second_start, second_start + half), size=second_size, first_index=half)
    path.write_bytes(first + path.read_bytes())


def _with_empty_samples(path: Path) -> None:
    """Some samples have no bytes, as encoders write for frames that did not change: the stated count is too high."""
    X264(path)
    mp4 = bytearray(path.read_bytes())
    table = mp4.index(b"stsz") + 16  # version and flags 4, common size 4, number of samples 4
    sizes = struct.unpack_from(f">{NUM_FRAMES}I", mp4, table)
    start = mp4.index(b"mdat") + 4
    for sample, size in enumerate(sizes):
        if sample % 3 == 0 and mp4[start + 4] == 0x01:  # a slice that is not referenced
            mp4[start + 4] = 0x0C  # becomes filler at the end of the sample before it
            struct.pack_into(">II", mp4, table + 4 * (sample - 1), sizes[sample - 1] + size, 0)
        start += size
    path.write_bytes(mp4)


def _doubled_times(packets: list[av.Packet]) -> Iterable[av.Packet]:
    """Every fifth frame bears the time of the one before."""
    for index, packet in enumerate(packets):
        if index % 5 == 4:
            packet.pts = packet.dts = packets[index - 1].pts
        yield packet


def _is_disposable(packet: av.Packet) -> bool:
    """Whether no other H.264 frame needs this one: the slice's header, after its start code, says so."""
    return b"\0\0\1\x01" in bytes(packet)


def _lossy(packets: list[av.Packet]) -> Iterable[av.Packet]:
    """Some frames that no other needs were left out."""
    disposable = [packet for packet in packets if _is_disposable(packet)]
    return (packet for packet in packets if packet not in disposable[::3])


def _pillow_frames(mode: str) -> list[Image.Image]:
    """Frames with transparent parts, so that a file holds differences only."""
    frames = []
    for index in range(NUM_FRAMES // 2):
        frame = Image.new("RGBA", SIZE, (0, 0, 0, 0) if index % 4 else (20, 40, 60, 255))
        patch = Image.fromarray(pixels(index, (40, 24))).convert("RGBA")
        frame.paste(patch, (2 * index, index))
        frames.append(frame.convert(mode))
    return frames


def _animated(path: Path, mode: str = "RGBA", **options: object) -> None:
    first, *rest = _pillow_frames(mode)
    durations = [40 + 20 * (index % 3) for index in range(len(rest) + 1)]
    first.save(path, save_all=True, append_images=rest, duration=durations, loop=0, **options)


FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}
WRAPPING = [2**33 - 90000 + 3750 * index for index in range(NUM_FRAMES)]  # a broadcast's clock has 33 bits
LATE = [time + 5000 for time in EVEN_MS]

# name -> (suffix, what writes it)
VIDEO_FILES: dict[str, tuple[str, Callable[[Path], None]]] = {
    # H.264
    "h264_mp4": (".mp4", X264),
    "h264_mkv": (".mkv", X264),
    "h264_mov": (".mov", X264),
    "h264_ts": (".ts", X264),
    "h264_flv": (".flv", X264),
    "h264_3gp": (".3gp", partial(X264, b_frames=0)),
    "h264_faststart": (".mp4", partial(X264, muxing={"movflags": "faststart"})),
    "h264_fragmented": (".mp4", partial(X264, muxing=FRAGMENTED)),
    "h264_sound": (".mp4", partial(X264, audio_codec="aac")),
    "h264_sound_mkv": (".mkv", partial(X264, audio_codec="libopus")),
    "h264_sound_ts": (".ts", partial(X264, audio_codec="aac")),
    "h264_avi": (".avi", X264),
    "h264_raw": (".h264", partial(X264, format="h264")),
    "h264_open_gop": (".mp4", x264("open-gop=1")),
    "h264_open_gop_mkv": (".mkv", x264("open-gop=1")),
    "h264_open_gop_ts": (".ts", x264("open-gop=1")),
    "h264_intra_refresh": (".mp4", x264("intra-refresh=1", b_frames=0)),
    "h264_intra_refresh_ts": (".ts", x264("intra-refresh=1", b_frames=0)),
    "h264_pyramid": (".mp4", x264("b-pyramid=normal:ref=8:bframes=8:b-adapt=2", gop=30, b_frames=8)),
    "h264_one_gop": (".mp4", partial(X264, gop=1000)),
    "h264_all_intra": (".mp4", partial(X264, gop=1, b_frames=0)),
    "h264_interlaced": (".mp4", x264("tff=1")),
    "h264_interlaced_ts": (".ts", x264("tff=1:open-gop=1")),
    "h264_10_bit": (".mp4", partial(X264, pix_fmt="yuv420p10le")),
    "h264_444": (".mp4", partial(X264, pix_fmt="yuv444p")),
    "h264_odd_size": (".mp4", partial(X264, pix_fmt="yuv444p", size=(97, 65))),
    "h264_turned_90": (".mp4", _turned(90)),
    "h264_turned_180": (".mp4", _turned(180)),
    "h264_turned_270": (".mp4", _turned(270)),
    "h264_uneven": (".mp4", partial(X264, times=UNEVEN_MS, time_base=MILLISECOND)),
    "h264_uneven_mkv": (".mkv", partial(X264, times=UNEVEN_MS, time_base=MILLISECOND)),
    "h264_starts_at_5_s": (".mp4", partial(X264, times=LATE, time_base=MILLISECOND)),
    "h264_starts_at_5_s_mkv": (".mkv", partial(X264, times=LATE, time_base=MILLISECOND)),
    "h264_negative_offsets": (".mp4", partial(X264, muxing={"movflags": "negative_cts_offsets"})),
    "h264_ntsc_mkv": (".mkv", partial(X264, time_base=Fraction(1001, 30000))),
    "h264_clock_wraps": (".ts", partial(X264, times=WRAPPING, time_base=Fraction(1, 90000))),
    "h264_edit_list": (".mp4", _starts_later),
    "h264_joined_late": (".ts", partial(_joined_late, write=X264)),
    "h264_open_gop_joined_late": (".ts", partial(_joined_late, write=x264("open-gop=1"))),
    "h264_two_sizes": (".ts", partial(_two_parts, second_start=NUM_FRAMES // 2 + 2, second_size=(128, 80))),
    "h264_overlapping": (".ts", partial(_two_parts, second_start=NUM_FRAMES // 2)),
    "h264_clock_restarts": (".ts", partial(_two_parts, second_start=0)),
    "h264_empty_samples": (".mp4", _with_empty_samples),
    "h264_lossy": (".mkv", partial(X264, edit=_lossy)),
    "h264_one_frame": (".mp4", partial(X264, times=[0])),
    "h264_two_frames": (".mkv", partial(X264, times=[0, 1])),
    # HEVC, VP8, VP9, AV1
    "hevc_mp4": (".mp4", x265("open-gop=0")),
    "hevc_open_gop": (".mp4", x265("open-gop=1")),
    "hevc_open_gop_mkv": (".mkv", x265("open-gop=1")),
    "hevc_open_gop_ts": (".ts", x265("open-gop=1")),
    "hevc_open_gop_joined_late": (".ts", partial(_joined_late, write=x265("open-gop=1"))),
    "hevc_intra_refresh": (".mp4", x265("intra-refresh=1:bframes=0")),
    "hevc_temporal_layers": (".mp4", x265("temporal-layers=3:bframes=4:b-pyramid=1:b-adapt=0")),
    "hevc_10_bit": (".mp4", x265("open-gop=0", pix_fmt="yuv420p10le")),
    "hevc_raw": (".hevc", x265("open-gop=0", format="hevc")),
    "vp8_webm": (".webm", partial(encode, codec="libvpx", options={"deadline": "realtime", "auto-alt-ref": "1"})),
    "vp9_webm": (".webm", VP9),
    "vp9_mp4": (".mp4", VP9),
    "vp9_alt_ref": (
        ".webm",
        partial(encode, codec="libvpx-vp9", options={"cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "16"}),
    ),
    "vp9_alpha": (".webm", partial(VP9, pix_fmt="yuva420p")),
    "vp9_uneven": (".webm", partial(VP9, times=UNEVEN_MS, time_base=MILLISECOND)),
    "av1_mp4": (".mp4", AV1),
    "av1_webm": (".webm", AV1),
    "av1_open_gop": (".mp4", partial(AV1, options={"preset": "12", "svtav1-params": "lp=1:irefresh-type=1"})),
    "av1_film_grain": (".mp4", partial(AV1, options={"preset": "12", "svtav1-params": "lp=1:film-grain=20"})),
    "av1_ivf": (".ivf", AV1),
    # MPEG-1, 2 and 4 and their like
    "mpeg4_mp4": (".mp4", MPEG4),
    "mpeg4_avi": (".avi", MPEG4),
    "mpeg4_avi_gaps": (".avi", partial(MPEG4, b_frames=0, times=[i + 3 * (i > 9) + 2 * (i > 30) for i in range(40)])),
    "mpeg4_3_b_frames_mkv": (".mkv", partial(MPEG4, b_frames=3)),
    "mpeg2_ts": (".ts", OPEN_MPEG2),
    "mpeg2_mpg": (".mpg", OPEN_MPEG2),
    "mpeg2_mkv": (".mkv", OPEN_MPEG2),
    "mpeg2_closed_ts": (".ts", partial(MPEG2, options={"flags": "+cgop", **NO_SCENE_CUTS})),
    "mpeg2_interlaced_ts": (".ts", INTERLACED_MPEG2),
    "mpeg2_interlaced_mpg": (".mpg", INTERLACED_MPEG2),
    "mpeg2_joined_late": (".ts", partial(_joined_late, write=OPEN_MPEG2)),
    "mpeg2_mxf": (".mxf", partial(encode, codec="mpeg2video", time_base=Fraction(1, 24))),
    "mpeg1_mpg": (".mpg", partial(encode, codec="mpeg1video", b_frames=2)),
    "flv1_flv": (".flv", partial(encode, codec="flv")),
    "wmv2_wmv": (".wmv", partial(encode, codec="wmv2")),
    # every frame by itself
    "mjpeg_avi": (".avi", partial(encode, codec="mjpeg", pix_fmt="yuvj420p")),
    "mjpeg_raw": (".mjpeg", partial(encode, codec="mjpeg", pix_fmt="yuvj420p", format="mjpeg")),
    "ffv1_mkv": (".mkv", partial(encode, codec="ffv1", gop=6)),
    "ffv1_doubled_times": (".mkv", partial(encode, codec="ffv1", gop=1, edit=_doubled_times)),
    "prores_mov": (".mov", partial(encode, codec="prores_ks", pix_fmt="yuv422p10le")),
    "png_mov": (".mov", partial(encode, codec="png", pix_fmt="rgba")),
    "y4m": (".y4m", partial(encode, codec="wrapped_avframe")),
    # drawn over each other
    "qtrle_mov": (".mov", partial(encode, codec="qtrle", pix_fmt="argb")),
    "gif": (".gif", partial(_animated, mode="RGBA")),
    "gif_kept": (".gif", partial(_animated, mode="RGBA", disposal=1)),
    "gif_background": (".gif", partial(_animated, mode="RGBA", disposal=2)),
    "gif_previous": (".gif", partial(_animated, mode="RGBA", disposal=3)),
    "apng": (".apng", _animated),
    "apng_blended": (".png", partial(_animated, blend=1)),
    "webp": (".webp", partial(_animated, lossless=True)),
    "webp_lossy": (".webp", partial(_animated, mode="RGB", quality=80, minimize_size=True)),
}


def with_gap(ts: bytes) -> bytes:
    """A recording that lost a stretch in the middle, inside two groups of pictures."""
    third = len(ts) // 3 // TS_PACKET_BYTES * TS_PACKET_BYTES
    return ts[:third] + ts[third + 30 * TS_PACKET_BYTES :]


def overwritten(mp4: bytes, where: float) -> bytes:
    """Some bytes of the pictures got lost."""
    first = mp4.index(b"mdat") + 8
    start = first + int(where * (mp4.rindex(b"moov") - first))
    return mp4[:start] + bytes(300) + mp4[start + 300 :]


# name -> (file of VIDEO_FILES, what happened to its bytes)
DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gap": ("h264_ts", with_gap),
    "overwritten": ("h264_mp4", partial(overwritten, where=0.45)),
    "overwritten_start": ("h264_mp4", partial(overwritten, where=0.02)),
}


def write_video_file(name: str, folder: Path) -> Path:
    """The file of that name, one of VIDEO_FILES, written into a folder."""
    suffix, write = VIDEO_FILES[name]
    path = folder / f"{name}{suffix}"
    write(path)
    return path
