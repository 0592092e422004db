"""Which frames of a video the sets of VLMEvalKit show, and those frames as the suite's files have them.

Source: ms-vlmeval 0.0.20, `save_video_frames` and `read_video` of the classes in `vlmeval/dataset/`. The suite decodes
with decord, writes each frame as a JPEG file of Pillow's default quality, and reads that.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..data.eval_rows import EvalRow, ImageRef
from .set_messages import MessageMedia

_BY_SEGMENT = ("MVBench", "MVBench_MP4")  # the middle of each of so many equal parts


@dataclass(frozen=True)
class ChosenFrames:
    """Frames of a file.

    Attributes:
        path: the file.
        indices: their positions in order of presentation, ascending; a short video has some more than once.
        times_s: index over rate, in seconds.
        duration_s: the number of frames over the rate.
    """

    path: Path
    indices: list[int]
    times_s: list[float]
    duration_s: float


def choose(row: EvalRow, check_cancelled: Callable[[], None] = lambda: None) -> ChosenFrames:
    """The frames of a row's video.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no video, or one without frames.
    """
    from ...media.video.probing import probe  # FFmpeg is slow to import

    assert row.video is not None
    if not row.video.is_file():
        raise FileNotFoundError(f"{row.video}: no such video")
    info = probe(row.video, check_cancelled=check_cancelled)
    fps = float(info.fps)
    indices = positions(info.frame_count, fps, row.sampling, row.dataset, _bound(row))
    if not indices:
        raise ValueError(f"{row.video.name} is {info.frame_count / fps:.2g} s long: no frame at this sampling rate")
    return ChosenFrames(row.video, indices, [index / fps for index in indices], info.frame_count / fps)


def positions(
    count: int,
    fps: float,
    sampling: tuple[str, float],
    dataset: str = "",
    bound_s: tuple[float, float] | None = None,
) -> list[int]:
    """Positions of the frames to show.

    Args:
        count: frames of the video.
        fps: its average rate.
        sampling: ("frames", how many in all) or ("fps", how many a second).
        dataset: the set, of which some choose in their own way.
        bound_s: the part to look at, in seconds; only MVBench's rows have it.
    """
    kind, amount = sampling
    if kind == "fps":
        return [int(number * fps / amount) for number in range(int(count / fps * amount))]
    wanted = int(amount)
    if dataset not in _BY_SEGMENT:
        return [int(number * (count / (wanted + 1))) for number in range(1, wanted + 1)]
    first, last = 0, count - 1
    if bound_s is not None:
        first, last = max(0, round(bound_s[0] * fps)), min(round(bound_s[1] * fps), count - 1)
    part = (last - first) / wanted
    return [int(first + part / 2 + round(part * number)) for number in range(wanted)]


def frame_files(chosen: ChosenFrames, wanted: list[int], check: Callable[[], None] = lambda: None) -> list[bytes]:
    """The JPEG files of some of the chosen frames, by their number among these.

    Raises:
        ValueError: the video breaks off before a frame.
    """
    from ...media.video.frames import read_frames
    from ...media.video.probing import probe

    indices = sorted({chosen.indices[number] for number in wanted})
    files: dict[int, bytes] = {}
    frames = read_frames(probe(chosen.path, check_cancelled=check), indices, check_cancelled=check)
    for index, frame in zip(indices, frames, strict=False):
        files[index] = as_jpeg(frame)
    if len(files) < len(indices):
        raise ValueError(f"{chosen.path.name} breaks off before frame {indices[len(files)]}")
    return [files[chosen.indices[number]] for number in wanted]


def as_jpeg(frame: Image.Image) -> bytes:
    """A frame as the suite writes it."""
    written = io.BytesIO()
    frame.save(written, "JPEG")
    return written.getvalue()


def row_media(row: EvalRow, chosen: ChosenFrames | None) -> MessageMedia:
    """What the row's message is built from; `chosen` are the frames of its video, if it has one."""
    if chosen is not None:
        return MessageMedia(len(chosen.indices), chosen.times_s, chosen.duration_s)
    if row.frames is not None:
        return MessageMedia(row.frames if isinstance(row.frames, int) else len(row.frames))
    return MessageMedia(len(row.images))


def names_of(row: EvalRow) -> list[str] | None:
    """What the row's images are called; None where frames have positions alone."""
    listed: list[ImageRef] | int | None = row.images if row.frames is None else row.frames
    return [image.name for image in listed] if isinstance(listed, list) and row.video is None else None


def _bound(row: EvalRow) -> tuple[float, float] | None:
    fields = row.fields
    if fields.get("bound") == "True" and "start" in fields and "end" in fields:
        return float(fields["start"]), float(fields["end"])
    return None
