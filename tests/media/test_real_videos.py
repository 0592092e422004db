"""Videos as they really are: times, length, orientation and frames are what was written down by hand for each file."""

import numpy as np
import pytest
from PIL import Image
from support.real_videos import REAL_VIDEOS
from support.slow_cases import quick_and_slow
from support.video_encoding import pixels

from mlx_smolvlm.media.video.frames import read_frames
from mlx_smolvlm.media.video.probing import choose_frames, probe

SIZES = [(64, 48), (128, 96), (128, 80)]  # of pictures other than the usual ones
SMALL = (24, 16)  # pictures are compared at this size: what codecs change is averaged out


@pytest.fixture(scope="module", params=quick_and_slow(REAL_VIDEOS, 4))
def real(request, tmp_path_factory):
    expected = REAL_VIDEOS[request.param]
    path = tmp_path_factory.mktemp("real") / f"clip{expected.suffix}"
    expected.write(path)
    return expected, path


def small(picture: np.ndarray, size: tuple[int, int] = SMALL) -> np.ndarray:
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize(size, Image.Resampling.BOX)).astype(int)


def nearest(picture: np.ndarray, size: tuple[int, int], turn) -> int:
    """Which of the pictures, turned as they are to be seen, a frame shows."""
    candidates = [*range(40), *range(100, 130)]
    portrait = SMALL[::-1] if turn(np.zeros((2, 3, 3))).shape[0] == 3 else SMALL
    seen = small(picture, portrait)
    distances = [np.abs(small(turn(pixels(index, size)), portrait) - seen).mean() for index in candidates]
    return candidates[int(np.argmin(distances))]


def test_times_and_length(real):
    expected, path = real
    info = probe(path)
    assert info.times_s == pytest.approx(np.array(expected.times_s), abs=0.002)  # Matroska counts milliseconds
    sample = choose_frames(info, 1.0, 64)
    assert sample.duration_s == pytest.approx(expected.duration_s, abs=0.06)  # sound comes in packets of 21 ms
    assert (info.missing is not None) == expected.missing


def test_frames_are_the_right_ones_and_upright(real):
    expected, path = real
    info = probe(path)
    pictures = list(range(info.frame_count) if expected.pictures is None else expected.pictures)
    wanted = sorted({0, 1, len(pictures) // 2, len(pictures) // 2 + 1, len(pictures) - 1})
    for indices in (wanted, wanted[-1:]):
        frames = list(read_frames(info, indices))
        assert len(frames) == len(indices)
        for index, frame in zip(indices, frames, strict=True):
            if expected.size is not None:
                assert frame.size == expected.size
            stored = frame.size if frame.size in SIZES else (96, 64)
            assert nearest(np.asarray(frame), stored, expected.orientation) == pictures[index]
