"""Video file -> the frames that the model sees, with their times. PyAV only, no MLX.

Sampling is that of transformers, `models/smolvlm/video_processing_smolvlm.py`, on the frame count and the
average rate that `video_utils.read_video_pyav` takes from the container. Where that would be wrong for users
it is done better: frames are rotated as the file asks, frame counts are checked against the packets, and
files of variable frame rate are sampled evenly in time, with each frame's true time.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .processor_config import VideoConfig

if TYPE_CHECKING:
    import av

SKIPPED_S = 1  # left out at both ends of a long video, where titles and credits are


@dataclass(frozen=True)
class VideoInfo:
    """What the container says of its first video stream.

    `times_s` holds each frame's presentation time from the first frame on, in order; `fps` is the average rate;
    `duration_s` is frame count / fps.
    """

    path: Path
    fps: Fraction
    times_s: np.ndarray  # (frame_count,) float64

    @property
    def frame_count(self) -> int:
        """Frames in the file, by its packets."""
        return len(self.times_s)

    @property
    def duration_s(self) -> float:
        """Frame count over average rate, in seconds."""
        return float(self.frame_count / self.fps)

    @property
    def is_constant_rate(self) -> bool:
        """Whether every frame lies within half a frame of where the average rate puts it."""
        expected = np.arange(self.frame_count) / float(self.fps)
        return bool(np.all(np.abs(self.times_s - expected) <= 0.5 / float(self.fps)))


@dataclass(frozen=True)
class FrameSample:
    """The frames to show: positions in presentation order, their times and the length of the video, in seconds."""

    indices: list[int]
    timestamps_s: list[float]
    duration_s: float


def sample_indices(
    frame_count: int, fps: float, duration_s: float, *, sample_fps: float, max_frames: int
) -> list[int]:
    """The reference's choice of frames: evenly spaced, one per 1 / `sample_fps` seconds, at most `max_frames`."""
    return np.unique(_positions(frame_count, fps, duration_s, sample_fps, max_frames).astype(int)).tolist()


def _positions(frame_count: int, fps: float, duration_s: float, sample_fps: float, max_frames: int) -> np.ndarray:
    """Where to look, in frames from the start, not yet whole numbers."""
    wanted = max(1, min(round(sample_fps * duration_s), max_frames))
    start, end = 0, frame_count - 1
    if duration_s - 2 * SKIPPED_S > max_frames * sample_fps:
        start, end = int(SKIPPED_S * fps), min(int(frame_count - SKIPPED_S * fps), end)
    if start >= end:
        start, end = 0, frame_count - 1
    return np.linspace(start, end, wanted)


def choose_frames(info: VideoInfo, config: VideoConfig) -> FrameSample:
    """Sample a video as its checkpoint asks; in files of variable rate, the frames nearest to even times."""
    if info.is_constant_rate:
        fps, duration_s = float(info.fps), info.duration_s
        indices = sample_indices(
            info.frame_count, fps, duration_s, sample_fps=config.fps, max_frames=config.max_frames
        )
        return FrameSample(indices, [index / fps for index in indices], duration_s)
    length_s = float(info.times_s[-1])
    fps = (info.frame_count - 1) / length_s
    duration_s = length_s + 1 / fps
    times_s = _positions(info.frame_count, fps, duration_s, config.fps, config.max_frames) / fps
    nearest = np.abs(info.times_s[None] - times_s[:, None]).argmin(axis=1)
    indices = np.unique(nearest).tolist()
    return FrameSample(indices, info.times_s[indices].tolist(), duration_s)


def probe(path: str | Path) -> VideoInfo:
    """Read a video's frame times from its packets; nothing is decoded.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a video, no video stream, or no frames.
    """
    path = Path(path)
    with suppress(RuntimeError):  # ~ without a home folder stands for itself
        path = path.expanduser()
    with _open(path) as container:
        stream = _video_stream(container, path)
        times = [
            float(packet.pts * packet.time_base)
            for packet in _packets(container, stream, path)
            if packet.pts is not None and packet.time_base is not None and not packet.is_discard
        ]
        rate = stream.average_rate or stream.guessed_rate
    if not times:
        raise ValueError(f"{path} has a video stream without frames; is the file complete?")
    times_s = np.sort(np.array(times))
    times_s -= times_s[0]
    if not rate:
        rate = Fraction(len(times) - 1) / Fraction(times_s[-1]) if times_s[-1] > 0 else Fraction(1)
    return VideoInfo(path, Fraction(rate), times_s)


def read_frames(info: VideoInfo, indices: list[int]) -> Iterator[np.ndarray]:
    """Decode from the start and yield the frames at these positions (ascending), upright.

    Yields:
        (height, width, 3) uint8 RGB. Fewer than asked for if the file breaks off early.
    """
    wanted = iter(indices)
    next_index = next(wanted, None)
    with _open(info.path) as container:
        stream = _video_stream(container, info.path)
        stream.thread_type = "AUTO"
        for position, frame in enumerate(_decoded(container, stream)):
            if next_index is None:
                return
            if position == next_index:
                yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))
                next_index = next(wanted, None)


def _open(path: Path) -> "av.container.InputContainer":
    import av  # slow to import, and most prompts have no video

    if not path.exists():
        raise FileNotFoundError(f"no video file {path}")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, expected a video file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty, expected a video file")
    try:
        container = av.open(str(path))
    except (av.FFmpegError, ValueError) as error:
        raise ValueError(f"{path} is not a video file that FFmpeg can read ({_reason(error)})") from None
    if container.format.name.endswith("_pipe") or container.format.name == "image2":
        container.close()
        raise ValueError(f"{path} is a picture, not a video; pass it as an image")
    return container


def _video_stream(container: "av.container.InputContainer", path: Path) -> Any:
    if not container.streams.video:
        raise ValueError(f"{path} has no video stream, only {container.format.long_name} data")
    return container.streams.video[0]


def _packets(container: "av.container.InputContainer", stream: Any, path: Path) -> Iterator[Any]:
    import av

    try:
        yield from container.demux(stream)
    except av.FFmpegError as error:
        raise ValueError(f"{path} is damaged: {_reason(error)}") from None


def _decoded(container: "av.container.InputContainer", stream: Any) -> Iterator[Any]:
    """Frames in presentation order; a damaged end is the end."""
    import av

    frames = container.decode(stream)
    while True:
        try:
            frame = next(frames)
        except (StopIteration, av.FFmpegError):
            return
        yield frame


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())
