"""Cuts parts out of a video and joins them in one MP4 file, without re-encoding where that is possible."""

import heapq
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter

from mlx_smolvlm.media.video.container import open_video, packets, reason
from mlx_smolvlm.media.video.frames import read_frames
from mlx_smolvlm.media.video.probing import VideoInfo

from .segments import Span, cut_points
from .sound import sound_packets

COPIED = {"av1", "h264", "hevc", "mpeg4", "vp9"}  # what MP4 can hold
TIME_BASE = Fraction(1, 90000)  # of video that is encoded: common frame rates are whole numbers of it
BT_709, UNSPECIFIED, LIMITED = 1, 2, 1  # colour spaces and ranges, as FFmpeg numbers them
BITS_PER_PIXEL = 0.15  # for encoders that know no constant quality


def cut(info: VideoInfo, spans: list[Span], path: Path, on_progress: Callable[[float], None]) -> bool:
    """Write spans of a video, with their sound, to a new MP4 file.

    Args:
        info: the video, from `probe`.
        spans: what to take, in order of time.
        path: the file to write.
        on_progress: called now and then with the seconds that have been written.

    Returns:
        Whether the pictures were copied as they are; otherwise they were decoded and encoded.

    Raises:
        ValueError: a file that cannot be read, or sound or pictures that cannot be written.
    """
    try:
        if _can_copy(info, spans):
            _write(info, spans, path, _copied, on_progress)
            if _plays(path, sum(span.end - span.first for span in spans)):
                return True
        _write(info, spans, path, _encoded, on_progress)
    except av.FFmpegError as error:
        raise ValueError(f"{info.path} cannot be cut: {reason(error)}") from None
    return False


def _write(
    info: VideoInfo,
    spans: list[Span],
    path: Path,
    pictures: Callable[..., Iterator[Any]],
    on_progress: Callable[[float], None],
) -> None:
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as output:
        # `merge` asks both for a packet before it gives the first, so that the file's header knows both streams.
        tracks = (pictures(info, spans, output), sound_packets(info, spans, output))
        for packet in heapq.merge(*tracks, key=lambda packet: packet.dts * packet.time_base):
            written_s = float(packet.dts * packet.time_base)
            output.mux(packet)
            on_progress(written_s)


def _can_copy(info: VideoInfo, spans: list[Span]) -> bool:
    """Whether all spans begin and end where the file can be cut."""
    with open_video(info.path) as (_, stream):
        codec = stream.codec.canonical_name
    borders = {border for span in spans for border in (span.first, span.end)} - {info.frame_count}
    return codec in COPIED and borders <= set(cut_points(info).tolist())


def _copied(info: VideoInfo, spans: list[Span], output: Any) -> Iterator[Any]:
    table = info.packets
    assert table is not None
    assert table.frame_times is not None  # as there are cut points
    times, output_pts = table.frame_times, []
    places: list[int] = []  # of the packets to copy, in the file
    with open_video(info.path) as (container, stream):
        for span in spans:
            end_time = times[span.end] if span.end < len(times) else times[-1] + 1
            is_inside = (table.pts >= times[span.first]) & (table.pts < end_time)
            inside = table.pts[is_inside].astype(np.int64)
            places += np.flatnonzero(is_inside).tolist()
            output_pts += (inside - int(times[span.first]) + round(span.offset_s / float(stream.time_base))).tolist()
        wanted = dict(zip(places, zip(output_pts, decode_times(output_pts), strict=True), strict=True))
        track = output.add_stream_from_template(stream, opaque=True)
        if stream.codec.canonical_name == "hevc":
            track.codec_context.codec_tag = "hvc1"  # QuickTime plays no other
        for place, packet in enumerate(packets(container, [stream], info.path)):
            if place in wanted:
                packet.pts, packet.dts = wanted.pop(place)
                packet.stream = track
                yield packet
            if not wanted:
                return


def decode_times(pts: list[int]) -> list[int]:
    """Times at which to decode packets that are shown at `pts`: ascending, and none after its `pts`.

    They are the times of presentation in order, put off by as many frames as the decoder has to look ahead. Those of
    the source are of no use where parts of it follow each other, and some containers have none.
    """
    ordered = np.sort(pts)
    delay = int(max(np.arange(len(pts)) - np.searchsorted(ordered, pts)))
    step = max(1, int(np.diff(ordered).min())) if len(pts) > 1 else 1
    early = ordered[0] - step * np.arange(delay, 0, -1)
    return np.concatenate([early, ordered[: len(pts) - delay]]).tolist()


def _plays(path: Path, frame_count: int) -> bool:
    """Whether a copy decodes to all of its frames, none damaged: keyframes do not always keep what they promise."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            stream.codec_context.options = {"err_detect": "explode"}
            whole = [not frame.is_corrupt for frame in container.decode(stream)]
    except av.FFmpegError:
        return False
    return len(whole) == frame_count and all(whole)


def _encoded(info: VideoInfo, spans: list[Span], output: Any) -> Iterator[Any]:
    """Upright, in 8 bits and even sizes, as players expect; each frame shown when and as long as in the source."""
    places = [(number, span) for span in spans for number in range(span.first, span.end)]
    track, converter = None, VideoReformatter()  # one for all frames: each starts threads
    for (number, span), picture in zip(places, read_frames(info, [number for number, _ in places]), strict=False):
        if track is None:
            track = _encoder(output, info, picture.size)
        frame = av.VideoFrame.from_image(picture)
        frame = converter.reformat(frame, track.width, track.height, "yuv420p", dst_colorspace=Colorspace.ITU709)
        frame.pts = round((info.times_s[number] - span.start_s + span.offset_s) / TIME_BASE)
        frame.time_base = TIME_BASE
        yield from track.encode(frame)
    if track is None:
        raise ValueError(f"{info.path}: no frame could be decoded; the file is damaged")
    yield from track.encode(None)


def _encoder(output: Any, info: VideoInfo, size: tuple[int, int]) -> Any:
    with open_video(info.path) as (_, stream):
        source = stream.codec_context
        colors = (source.color_primaries, source.color_trc)
    primaries, transfer = (BT_709 if color == UNSPECIFIED else color for color in colors)
    rate = info.fps.limit_denominator(1001) or Fraction(1, 1001)
    if sys.platform == "darwin" and "h264_videotoolbox" in av.codecs_available:
        track = output.add_stream("h264_videotoolbox", rate=rate, options={"allow_sw": "1"})
        track.bit_rate = int(BITS_PER_PIXEL * size[0] * size[1] * rate)
    else:
        track = output.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "fast"})
    track.width, track.height = (side + side % 2 for side in size)
    encoder = track.codec_context
    encoder.pix_fmt, encoder.time_base, encoder.sample_aspect_ratio = "yuv420p", TIME_BASE, Fraction(1)
    encoder.colorspace, encoder.color_range = BT_709, LIMITED
    encoder.color_primaries, encoder.color_trc = primaries, transfer
    return track
