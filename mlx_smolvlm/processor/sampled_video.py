"""A video that the caller has decoded, and what else stands for a video in a call."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SampledVideo:
    """A video whose frames the caller has decoded and chosen, to be passed in place of a path.

    Attributes:
        frames: PIL images or (height, width, 3) uint8 RGB arrays, in order of time.
        timestamps_s: when each is shown, in seconds from the start of the video.
        duration_s: how long the video is.
        are_tiles: the frames are what `Processor.video_tile` returned.
        name: what it is called in messages.

    Raises:
        ValueError: no frames, not one time stamp per frame, or times that do not ascend.
    """

    frames: Sequence[Any]
    timestamps_s: Sequence[float]
    duration_s: float
    are_tiles: bool = False
    name: str = "sampled video"

    def __post_init__(self) -> None:
        if not len(self.frames) or len(self.frames) != len(self.timestamps_s):
            raise ValueError(
                f"{self.name} has {len(self.frames)} frames and {len(self.timestamps_s)} time stamps, "
                "expected at least one frame, and one time stamp each"
            )
        if not all(map(math.isfinite, [*self.timestamps_s, self.duration_s])) or self.duration_s < 0:
            raise ValueError(
                f"{self.name} has time stamps {list(self.timestamps_s)} and a duration of {self.duration_s}, "
                "expected seconds"
            )
        if list(self.timestamps_s) != sorted(self.timestamps_s) or self.timestamps_s[0] < 0:
            raise ValueError(f"{self.name} has time stamps {list(self.timestamps_s)}, expected ascending seconds")


VideoSource = str | os.PathLike[str] | SampledVideo
