"""Videos that are closed and opened again while their frames are read, or cannot be opened for lack of memory."""

from fractions import Fraction

import av
import numpy as np
import pytest
from support.media import video_path

from mlx_smolvlm.media.video.probing import probe
from mlx_smolvlm.media.video.upright import Upright


def test_frames_are_made_upright_after_their_file_was_reopened() -> None:
    """The aspect of a stream of a closed file was asked for: a crash of the process."""

    class Stream:
        sample_aspect_ratio = Fraction(2)

    stream = Stream()
    upright = Upright(stream)
    del Stream.sample_aspect_ratio
    assert upright(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8))).size == (32, 16)


def test_a_header_that_claims_more_memory_than_there_is_is_damage(monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(av, "open", refuse)
    with pytest.raises(ValueError, match="is damaged: it asks for more memory than there is"):
        probe(video_path("clip"))
