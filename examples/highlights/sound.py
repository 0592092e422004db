"""The sound of the parts that are cut out: copied where MP4 can hold it, otherwise encoded as AAC."""

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any

import av
import numpy as np

from mlx_smolvlm.media.video.container import open_video
from mlx_smolvlm.media.video.packet_table import PacketTable
from mlx_smolvlm.media.video.probing import VideoInfo
from mlx_smolvlm.media.video.timeline import Segments

from .segments import Span

COPIED = {"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"}  # what MP4 can hold
SAMPLE_RATE = 48000  # of sound that is encoded
MARGIN_S = 1  # sound may lie this far in the file from the frames that it belongs to
JITTER_S = 0.02  # containers round times: a smaller gap is none
SEEKABLE = ("mov,mp4", "matroska")  # formats in which a seek lands where it should


def sound_packets(info: VideoInfo, spans: list[Span], output: Any) -> Iterator[Any]:
    """Packets of the first audio stream for these spans, if there is one; adds a stream to the output for them."""
    with open_video(info.path) as (container, video):
        if not container.streams.audio:
            return
        audio = container.streams.audio[0]
        if audio.codec_context is None:
            raise ValueError(f"{info.path} has sound in a format that FFmpeg cannot decode")
        source = _Source(container, video, audio, info.packets)
        is_copied = audio.codec_context.codec.canonical_name in COPIED
        yield from (_copied if is_copied else _encoded)(source, spans, output)


class _Source:
    """An audio stream whose times count from the first frame of the video."""

    def __init__(self, container: Any, video: Any, stream: Any, table: PacketTable | None):
        self.container = container
        self.stream = stream
        self._video = video
        self._segments = Segments() if table is None else table.segments
        frame_times = None if table is None else table.frame_times
        first = 0 if frame_times is None else int(frame_times[0]) + self._segments.shifts[0]
        self.origin_s = first * video.time_base

    def packets(self, span: Span) -> Iterator[tuple[Any, Fraction]]:
        """Packets around a span, and where each belongs in the output, in seconds."""
        start_s = self.origin_s + Fraction(span.start_s) - MARGIN_S
        may_seek = self.container.format.name.startswith(SEEKABLE) and not self._segments.is_joined and start_s > 0
        self.container.seek(int(start_s * av.time_base) if may_seek else 0)
        for packet in self._joined() if self._segments.is_joined else self.container.demux(self.stream):
            if packet.pts is not None:
                place_s = self.place_s(packet, span)
                if place_s > span.offset_s + span.length_s + MARGIN_S:
                    return
                yield packet, place_s

    def _joined(self) -> Iterator[Any]:
        """The packets of joined recordings, on the clock of the first one."""
        position, end_s, first = 0, None, self._segments.shifts[0]
        for packet in self.container.demux(self._video, self.stream):
            if packet.stream_index == self._video.index:
                position += 1
            elif packet.pts is not None:
                # Sound may lie before the border with the pictures of the recording after it, or the other way round.
                number = bisect_right(self._segments.positions, position) - 1
                shifts = self._segments.shifts[max(0, number - 1) : number + 2]
                times_s = [packet.pts * packet.time_base - (shift - first) * self._video.time_base for shift in shifts]
                time_s = times_s[0] if end_s is None else min(times_s, key=lambda time_s: abs(time_s - end_s))
                packet.pts = round(time_s / packet.time_base)
                end_s = time_s + (packet.duration or 0) * packet.time_base
                yield packet

    def place_s(self, item: Any, span: Span) -> Fraction:
        """Where a packet or frame of the source belongs in the output."""
        return item.pts * item.time_base - self.origin_s - Fraction(span.start_s) + Fraction(span.offset_s)


def _copied(source: _Source, spans: list[Span], output: Any) -> Iterator[Any]:
    """Packets cannot be divided: a span begins with the one that fits best, and joins the sound before without gap."""
    track = output.add_stream_from_template(source.stream, opaque=True)
    written_s = Fraction(0)
    for span in spans:
        shift_s: Fraction | None = None
        for packet, place_s in source.packets(span):
            half_s = (packet.duration or 0) * packet.time_base / 2
            if shift_s is None and place_s < written_s - half_s:
                continue
            if place_s > span.offset_s + span.length_s - half_s:
                break
            if shift_s is None:
                shift_s = written_s - place_s if place_s <= written_s + half_s else Fraction(0)
            packet.pts = packet.dts = round((place_s + shift_s) / packet.time_base)
            written_s = place_s + shift_s + 2 * half_s
            packet.stream = track
            yield packet


def _encoded(source: _Source, spans: list[Span], output: Any) -> Iterator[Any]:
    """Decoded, cut to the sample, and encoded."""
    layout = "mono" if source.stream.codec_context.channels == 1 else "stereo"
    track = output.add_stream("aac", rate=SAMPLE_RATE, layout=layout)
    written = 0
    for span in spans:
        for samples in _samples(source, span, layout):
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, written, Fraction(1, SAMPLE_RATE)
            written += samples.shape[1]
            yield from track.encode(frame)
    yield from track.encode(None)


def _samples(source: _Source, span: Span, layout: str) -> Iterator[np.ndarray]:
    """(channels, samples) float32, in all as long as the span: silence stands where the source has no sound."""
    resampler = av.AudioResampler("fltp", layout, SAMPLE_RATE)
    start, end = (round(second * SAMPLE_RATE) for second in (span.offset_s, span.offset_s + span.length_s))
    position = start
    for packet, _ in source.packets(span):
        decoded = []
        with suppress(av.FFmpegError):  # a damaged packet: silence
            decoded = packet.decode()
        for frame in (part for whole in decoded for part in resampler.resample(whole)):
            samples = frame.to_ndarray()
            gap = round(source.place_s(frame, span) * SAMPLE_RATE) - position
            if position == start or abs(gap) > JITTER_S * SAMPLE_RATE:
                samples = np.pad(samples[:, max(0, -gap) :], ((0, 0), (max(0, gap), 0)))
            samples = samples[:, : end - position]
            if samples.size:
                position += samples.shape[1]
                yield np.ascontiguousarray(samples)
    if position < end:
        yield np.zeros((1 if layout == "mono" else 2, end - position), np.float32)
