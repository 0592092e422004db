"""Where a video may be divided, and what is known of each piece."""

from dataclasses import dataclass, replace

import numpy as np

from mlx_smolvlm.media.video.probing import VideoInfo

SNAP = 0.25  # how far a boundary may move to lie on a keyframe, as a share of a segment's length
TICK_S = 1e-6  # far less than any frame lasts: times are compared with this tolerance


@dataclass(frozen=True)
class Segment:
    """Frames `first` up to, not including, `end`, by position; times in seconds from the video's first frame."""

    first: int
    end: int
    start_s: float
    end_s: float
    description: str = ""
    is_highlight: bool = False


def split(info: VideoInfo, length_s: float) -> list[Segment]:
    """Divide a video into segments of about `length_s` seconds, at keyframes where some are near enough.

    Segments between keyframes can be cut out without re-encoding. A rest of less than half a segment belongs
    to the last one.
    """
    duration_s = end_of(info)
    keyframes = cut_points(info)
    firsts = [0]
    for number in range(1, max(1, round(duration_s / length_s))):
        wanted_s = number * length_s
        first = int(np.searchsorted(info.times_s, wanted_s - TICK_S))
        if len(keyframes):
            distances_s = np.abs(info.times_s[keyframes] - wanted_s)
            if distances_s.min() <= SNAP * length_s:
                first = int(keyframes[distances_s.argmin()])
        if firsts[-1] < first < info.frame_count:
            firsts.append(first)
    ends = [*firsts[1:], info.frame_count]
    times_s = [*info.times_s[firsts].tolist(), duration_s]
    return [Segment(*facts) for facts in zip(firsts, ends, times_s, times_s[1:], strict=False)]


def end_of(info: VideoInfo) -> float:
    """When the last frame ends, in seconds from the first."""
    last_s = float(info.times_s[-1])
    return info.duration_s if info.duration_s > last_s else last_s + float(1 / info.fps)


def cut_points(info: VideoInfo) -> np.ndarray:
    """Positions of the frames at which the file can be cut as it is.

    They are keyframes that divide the frames in file order as in order of presentation: nothing shown after one
    lies before it, and nothing after it in the file is shown before it (as in an open group of pictures).
    """
    table = info.packets
    if table is None or not table.restarts or table.frame_times is None:
        return np.array([], int)
    latest_before = np.maximum.accumulate(table.pts)
    earliest_after = np.minimum.accumulate(table.pts[::-1])[::-1]
    divides = table.is_keyframe & (latest_before == table.pts) & (earliest_after == table.pts)
    return np.flatnonzero(np.isin(table.frame_times, table.pts[divides]))


@dataclass(frozen=True)
class Span:
    """Frames `first` up to, not including, `end`: where they are in the source, and where in the new file.

    Times are in seconds from the first frame of either.
    """

    first: int
    end: int
    start_s: float
    end_s: float
    offset_s: float

    @property
    def length_s(self) -> float:
        """How long it is, in seconds."""
        return self.end_s - self.start_s


def laid_end_to_end(segments: list[Segment]) -> list[Span]:
    """The highlights in the order in which the new file shows them, those that touch made one."""
    spans: list[Span] = []
    offset_s = 0.0
    for segment in segments:
        if segment.is_highlight:
            if spans and spans[-1].end == segment.first:
                spans[-1] = replace(spans[-1], end=segment.end, end_s=segment.end_s)
            else:
                spans.append(Span(segment.first, segment.end, segment.start_s, segment.end_s, offset_s))
            offset_s += segment.end_s - segment.start_s
    return spans
