"""Videos as they really are: joined, mirrored, with several streams, cut off; and what is right for each, by hand.

`REAL_VIDEOS` maps a name to what writes the file and what must come of it. Frame i of a file shows `pixels(i)`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from .odd_videos import (
    HALF,
    ORIENTATIONS,
    anamorphic,
    animation,
    cut_off,
    joined,
    jumping,
    later_half,
    part,
    two,
    two_streams,
    with_cover,
    with_matrix,
    with_sound,
    with_stream_matrix,
)
from .video_encoding import AV1, FPS, MPEG2, VP9, X264, encode, x264, x265
from .video_files import FRAGMENTED

WRAP = 2**33  # ticks of a transport stream's clock, 90000 a second
HOUR_FRAMES = 3600 * FPS
EVEN = tuple(index / FPS for index in range(2 * HALF))
LOW_SIZE = (64, 48)
VP8_LIVE = partial(encode, codec="libvpx", options={"deadline": "realtime"}, muxing={"live": "1"})
CLOSED_MPEG2 = partial(MPEG2, options={"flags": "+cgop", "sc_threshold": "1000000000"})


@dataclass(frozen=True)
class Real:
    """A file and what is right for it.

    Attributes:
        suffix: of its name.
        write: writes it to a path.
        times_s: when each frame is shown.
        duration_s: how long it is.
        pictures: which of `pixels` each frame shows; 0, 1, 2, ... if None.
        orientation: function of (height, width, 3) arrays that turns a stored picture as it is to be seen.
        size: (width, height) of the frames as they are to be seen; that of the pictures if None.
        missing: whether the file ends early.
    """

    suffix: str
    write: Callable[[Path], object]
    times_s: Sequence[float] = EVEN
    duration_s: float = 2 * HALF / FPS
    pictures: Sequence[int] | None = None
    orientation: Callable[[np.ndarray], np.ndarray] = np.asarray
    size: tuple[int, int] | None = None
    missing: bool = False


def _all(write: Callable[..., None], **options: object) -> Callable:
    return partial(write, times=range(2 * HALF), **options)


STANDING = tuple(index / 2 for index in range(4))
REAL_VIDEOS: dict[str, Real] = {
    "h264_ts_twice": Real(".ts", two(X264)),
    "h264_open_ts_twice": Real(".ts", two(x264("open-gop=1"))),
    "h264_no_b_frames_ts_twice": Real(".ts", two(partial(X264, b_frames=0))),
    "hevc_ts_twice": Real(".ts", two(x265("open-gop=0"))),
    "mpeg2_ts_twice": Real(".ts", two(CLOSED_MPEG2)),
    "mpeg2_mpg_twice": Real(".mpg", two(CLOSED_MPEG2)),
    "h264_mkv_twice": Real(".mkv", two(X264)),
    "vp8_webm_twice": Real(".webm", two(VP8_LIVE)),
    "vp9_webm_twice": Real(".webm", two(VP9, muxing={"live": "1"})),
    "av1_webm_twice": Real(".webm", two(AV1)),
    "h264_sound_ts_twice": Real(".ts", two(partial(X264, audio_codec="aac"))),
    "three_takes": Real(".ts", lambda path: joined(path, part(X264, 0, 8), part(X264, 8, 8), part(X264, 16, 8))),
    "late_then_early": Real(".ts", lambda path: joined(path, part(X264, 0, start=100 * FPS), part(X264, HALF))),
    "early_then_late": Real(".ts", lambda path: joined(path, part(X264, 0), part(X264, HALF, start=HOUR_FRAMES))),
    "a_clock_that_wraps": Real(
        ".ts",
        partial(X264, times=[WRAP - 45000 + 3750 * i for i in range(2 * HALF)], time_base=Fraction(1, 90000)),
    ),
    "a_clock_that_jumps": Real(
        ".ts", partial(X264, b_frames=0, times=range(2 * HALF), edit=partial(jumping, frames=HOUR_FRAMES))
    ),
    "a_clock_that_jumps_back": Real(
        ".ts",
        lambda path: joined(path, part(X264, 0, start=HOUR_FRAMES), part(X264, HALF, start=60 * FPS)),
    ),
    "a_day_later_in_matroska": Real(
        ".mkv", partial(X264, b_frames=0, times=range(2 * HALF), edit=partial(jumping, frames=30 * HOUR_FRAMES))
    ),
    "a_minute_of_nothing_in_matroska": Real(
        ".mkv",
        partial(X264, b_frames=0, times=range(2 * HALF), edit=partial(jumping, frames=60 * FPS)),
        times_s=[*EVEN[:HALF], *(60 + time_s for time_s in EVEN[HALF:])],
        duration_s=61.0,
    ),
    "a_still_scene_with_sound": Real(
        ".ts",
        partial(with_sound, seconds=31, times=[*range(HALF), *range(HALF + 30 * FPS, 2 * HALF + 30 * FPS)]),
        times_s=[*EVEN[:HALF], *(30 + time_s for time_s in EVEN[HALF:])],
        duration_s=31.0,
    ),
    "a_time_lapse": Real(
        ".ts",
        partial(X264, b_frames=0, times=range(0, 15 * 6 * FPS, 15 * FPS)),
        times_s=[15.0 * index for index in range(6)],
        duration_s=90.0,
    ),
    "two_sizes": Real(".ts", lambda path: joined(path, part(X264, 0), part(X264, HALF, size=(128, 80)))),
    "a_part_that_begins_anywhere": Real(  # half of its 24 frames are gone, and those up to the next keyframe
        ".ts",
        lambda path: joined(
            path, part(partial(X264, b_frames=0), 0), part(partial(X264, b_frames=0), 12, 24), change=later_half
        ),
        pictures=[*range(HALF), *range(24, 36)],
    ),
    # a last frame that stands
    "gif": Real(".gif", partial(animation, format="GIF", durations_ms=[500, 500, 500, 6000]), STANDING, 7.5),
    "webp": Real(
        ".webp", partial(animation, format="WEBP", durations_ms=[500, 500, 500, 6000], lossless=True), STANDING, 7.5
    ),
    "apng": Real(".png", partial(animation, format="PNG", durations_ms=[500, 500, 500, 6000]), STANDING, 7.5),
    "avif": Real(".avif", partial(animation, format="AVIF", durations_ms=[500, 500, 500, 6000]), STANDING, 7.5),
    "avif_as_mp4": Real(".mp4", partial(animation, format="AVIF", durations_ms=[500] * 4), STANDING, 2.0),
    "mp4_sound_goes_on": Real(".mp4", partial(with_sound, seconds=9), duration_s=9.0),
    "mkv_sound_goes_on": Real(".mkv", partial(with_sound, seconds=9), duration_s=9.0),
    "ts_sound_goes_on": Real(".ts", partial(with_sound, seconds=9), duration_s=9.0),
    "flv_sound_goes_on": Real(".flv", partial(with_sound, seconds=9), duration_s=9.0),
    "sound_ends_with_the_film": Real(".mp4", partial(with_sound, seconds=1.2)),
    # geometry
    **{
        f"{name}_{kind}": Real(f".{kind}", partial(with_matrix, write=_all(X264), matrix=matrix), orientation=turn)
        for name, (matrix, turn) in ORIENTATIONS.items()
        for kind in ("mp4", "mov")
    },
    "fragmented_mirrored": Real(
        ".mp4",
        partial(with_matrix, write=_all(X264, muxing=FRAGMENTED), matrix=ORIENTATIONS["mirrored"][0]),
        orientation=ORIENTATIONS["mirrored"][1],
    ),
    "clockwise_mkv": Real(".mkv", partial(with_stream_matrix, degrees=-90), orientation=ORIENTATIONS["clockwise"][1]),
    "mirrored_mkv": Real(
        ".mkv", partial(with_stream_matrix, degrees=0, hflip=True), orientation=ORIENTATIONS["mirrored"][1]
    ),
    "wide_pixels_mp4": Real(".mp4", anamorphic(X264, "2:1"), size=(192, 64)),
    "wide_pixels_mkv": Real(".mkv", anamorphic(X264, "2:1"), size=(192, 64)),
    "wide_pixels_ts": Real(".ts", anamorphic(X264, "2:1"), size=(192, 64)),
    "narrow_pixels_mp4": Real(".mp4", anamorphic(X264, "1:2"), size=(96, 128)),
    "wide_pixels_turned": Real(
        ".mp4",
        partial(with_matrix, write=anamorphic(X264, "2:1"), matrix=ORIENTATIONS["clockwise"][0]),
        orientation=ORIENTATIONS["clockwise"][1],
        size=(64, 192),
    ),
    # streams
    "the_default_stream": Real(".mkv", partial(two_streams, default=0, sizes=[LOW_SIZE, (128, 96)]), size=LOW_SIZE),
    "the_second_is_default": Real(
        ".mkv",
        partial(two_streams, default=1, sizes=[(128, 96), LOW_SIZE]),
        pictures=range(100, 100 + 2 * HALF),
        size=LOW_SIZE,
    ),
    "the_larger_stream": Real(
        ".ts",
        partial(two_streams, default=None, sizes=[LOW_SIZE, (128, 96)]),
        pictures=range(100, 100 + 2 * HALF),
        size=(128, 96),
    ),
    "a_marked_cover": Real(".mp4", partial(with_cover, is_marked=True)),
    "a_cover_without_a_mark": Real(".mp4", partial(with_cover, is_marked=False)),
    # incomplete
    "half_a_matroska": Real(
        ".mkv", partial(cut_off, write=_all(X264, b_frames=0), share=0.5), EVEN[:11], 11 / FPS, missing=True
    ),
    "half_an_avi": Real(
        ".avi",
        partial(cut_off, write=_all(partial(encode, codec="mjpeg", pix_fmt="yuvj420p")), share=0.5),
        EVEN[:5],  # the first ones are the largest
        5 / FPS,
        missing=True,
    ),
    "half_an_mp4": Real(
        ".mp4",
        partial(cut_off, write=_all(X264, b_frames=0, muxing={"movflags": "faststart"}), share=0.5),
        EVEN[:11],
        11 / FPS,
        missing=True,
    ),
}
