"""A live source that is being read, without a model."""

import numpy as np

from mlx_smolvlm.media.live.frame_buffer import FrameBuffer
from mlx_smolvlm.media.live.naming import read_source
from mlx_smolvlm.media.live.reader import LiveReader


class Reading:
    """A source that is being read, with a tile of one pixel for each frame."""

    def __init__(self, source, *, interval_s=0.1, max_frames=1000, realtime=False, stall_timeout_s=5.0, retries=2):
        self.buffer = FrameBuffer(max_frames)
        self.reader = LiveReader(
            read_source(str(source)),
            self.buffer,
            lambda image: np.asarray(image.resize((1, 1))),
            sample_interval_s=interval_s,
            realtime=realtime,
            stall_timeout_s=stall_timeout_s,
            retries=retries,
        )

    def __enter__(self):
        self.reader.start()
        return self

    def __exit__(self, *_):
        self.reader.close()

    def to_end(self, timeout_s=10.0):
        """All frames that are in the buffer once the source has ended."""
        assert self.buffer.wait_for(float("inf"), timeout_s), "the source does not end"
        return self.buffer.take(0, float("inf"), 0)


def times(frames):
    return [round(frame.time_s, 3) for frame in frames]
