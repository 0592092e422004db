"""A video that the caller has decoded, and what else stands for a video in a call."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..options import is_between, quoted


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
        for name in ("frames", "timestamps_s"):
            given = getattr(self, name)
            if isinstance(given, str | bytes | Mapping) or not hasattr(given, "__len__"):
                raise ValueError(f"{self.name} has {name} {quoted(given)}, expected a list")
        if not len(self.frames) or len(self.frames) != len(self.timestamps_s):
            raise ValueError(
                f"{self.name} has {len(self.frames)} frames and {len(self.timestamps_s)} time stamps, "
                "expected at least one frame, and one time stamp each"
            )
        times = [*self.timestamps_s, self.duration_s]
        if not all(is_between(second, -math.inf, math.inf) for second in times) or self.duration_s < 0:
            raise ValueError(
                f"{self.name} has time stamps {quoted(self.timestamps_s)} and a duration of {quoted(self.duration_s)}, "
                "expected seconds"
            )
        if list(self.timestamps_s) != sorted(self.timestamps_s) or self.timestamps_s[0] < 0:
            raise ValueError(f"{self.name} has time stamps {quoted(self.timestamps_s)}, expected ascending seconds")
        # Python's numbers in place of NumPy's, which sessions could not be saved with.
        object.__setattr__(self, "timestamps_s", [float(second) for second in self.timestamps_s])
        object.__setattr__(self, "duration_s", float(self.duration_s))


VideoSource = str | os.PathLike[str] | SampledVideo
