"""How the pictures and videos of a prompt are to be read, where it differs from the checkpoint's settings."""

from dataclasses import dataclass, replace

from ..processor.processor_config import ImageConfig, VideoConfig
from ..processor.tiling import MAX_SIDE


@dataclass(frozen=True)
class MediaOptions:
    """None leaves the checkpoint's setting.

    Attributes:
        do_image_splitting: False sends one tile per picture.
        longest_edge: pixels to which a picture's longest side is resized.
        fps: frames per second of video.
        max_frames: most frames per video.
        start_s, end_s: the part of each video to look at, in seconds from its first frame.
        hardware_decoding: decode videos with VideoToolbox where the machine has it, otherwise in software.

    Raises:
        ValueError: an option out of range.
    """

    do_image_splitting: bool | None = None
    longest_edge: int | None = None
    fps: float | None = None
    max_frames: int | None = None
    start_s: float | None = None
    end_s: float | None = None
    hardware_decoding: bool = False

    def __post_init__(self) -> None:
        if self.longest_edge is not None and not 1 <= self.longest_edge <= MAX_SIDE:
            raise ValueError(f"longest_edge is {self.longest_edge}, expected 1 to {MAX_SIDE} pixels")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise ValueError(f"fps is {self.fps}, expected a positive number of frames per second")
        if self.max_frames is not None and self.max_frames < 1:
            raise ValueError(f"max_frames is {self.max_frames}, expected at least 1")
        for name, second in (("start", self.start_s), ("end", self.end_s)):
            if second is not None and not 0 <= second < float("inf"):
                raise ValueError(f"{name} is {second}, expected seconds from the first frame of the video")
        start_s = self.start_s or 0
        if self.end_s is not None and start_s >= self.end_s:
            raise ValueError(f"start is {start_s:g} s and end {self.end_s:g} s, expected an end after the start")

    def image_config(self, config: ImageConfig) -> ImageConfig:
        """A checkpoint's settings for pictures, with these in their place."""
        if self.longest_edge is not None:
            config = replace(config, longest_edge=self.longest_edge)
        if self.do_image_splitting is not None:
            config = replace(config, do_image_splitting=self.do_image_splitting)
        return config

    def video_config(self, config: VideoConfig | None, tile_size: int) -> VideoConfig:
        """A checkpoint's settings for videos, with these in their place.

        Raises:
            ValueError: a checkpoint that was not made for video, unless both rate and number of frames are given.
        """
        if config is not None:
            return replace(config, fps=self.fps or config.fps, max_frames=self.max_frames or config.max_frames)
        if self.fps is None or self.max_frames is None:
            raise ValueError(
                "this checkpoint states no video sampling, so it was not made for video; "
                "to try all the same, state both the frames per second (fps) and the most frames (max_frames)"
            )
        return VideoConfig(self.fps, self.max_frames, tile_size)
