"""Decoded and encoded frames in other pixel formats. One converter serves all: each new one starts threads."""

import av
import numpy as np
from av.video.reformatter import VideoReformatter

_CONVERTER = VideoReformatter()


def converted(frame: av.VideoFrame, pix_fmt: str) -> av.VideoFrame:
    """The frame in another pixel format, with its times."""
    return _CONVERTER.reformat(frame, format=pix_fmt)


def pixels_of(frame: av.VideoFrame, pix_fmt: str = "rgb24") -> np.ndarray:
    """The frame as (height, width, 3) uint8, or (height, width) if `pix_fmt` is "gray"."""
    return converted(frame, pix_fmt).to_ndarray()
