"""Packets -> frames and times: memory that hardly grows, and clocks that jump."""

import tracemalloc
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from support.slow_cases import slow

from mlx_smolvlm.media.video.packet_table import packet_table
from mlx_smolvlm.media.video.probing import VideoInfo, choose_frames
from mlx_smolvlm.media.video.timeline import Timeline

MANY = 50_000  # frames: about half an hour
BYTES_A_FRAME = 16
FIXED_BYTES = 200_000  # one block of packets as Python's objects


@dataclass(slots=True)
class Packet:
    """What PyAV tells of one."""

    pts: int | None
    dts: int | None
    is_keyframe: bool
    size: int = 1000
    duration: int = 3000
    stream_index: int = 0
    is_discard: bool = False
    is_corrupt: bool = False


def packets(count, step=3000, group=31):
    """Groups of a keyframe and pairs, of which the second one in the file is shown first."""
    for index in range(count):
        number = index % group
        ahead = 0 if number == 0 else 1 if number % 2 else -1
        yield Packet((index + ahead) * step, (index - 1) * step, number == 0)


def table_of(packets, **options):
    settings = {"time_base": 1 / 90000, "stream_index": 0, "may_jump": True, **options}
    return packet_table(packets, "mpegts", "h264", **settings)


@pytest.mark.parametrize("rate", [slow(Fraction(30)), Fraction(7)], ids=["constant rate", "variable rate"])
def test_choosing_frames_takes_at_most_16_bytes_a_frame(monkeypatch, rate):
    monkeypatch.setattr("mlx_smolvlm.media.video.packet_table.crc32", lambda packet: 1)
    source = packets(MANY)
    np.unique([1])  # imports what it needs at its first call
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        table = table_of(source)
        info = VideoInfo(Path("clip.ts"), rate, table.frame_count, table.frame_times, 1 / 90000, table)
        sample = choose_frames(info, 1.0, 64, start_s=100.0)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert table.frame_count == MANY
    assert table.is_matched_by_time
    assert len(sample.indices) == 64
    assert peak <= BYTES_A_FRAME * MANY + FIXED_BYTES


def shifted(stamps, may_jump=True, sound=(), tick_s=0.01):
    """Presentation times of frames, all keyframes, on the clock that goes on."""
    timeline = Timeline(tick_s, may_jump)
    for start, end in sound:
        timeline.hear(start, end)
    times = np.array([stamp - timeline.shift(stamp, stamp, True) for stamp in stamps])
    for position, gap in timeline.real_gaps(len(stamps)):
        times[position:] += gap
    return times.tolist()


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ([500, 504, 508], [0, 4, 8]),
        ([0, 4, 8, 0, 4, 8], [0, 4, 8, 0, 4, 8]),  # within a tenth of a second: no other recording
        ([0, 50, 100, 0, 50], [0, 50, 100, 150, 200]),
        ([0, 50, 100, 9_000_000, 9_000_050], [0, 50, 100, 150, 200]),
        ([0, 50, 100, 900, 950], [0, 50, 100, 900, 950]),  # eight seconds: nothing moved
        ([9_000_000, 9_000_050, 0, 50, 9_000_100], [0, 50, 100, 150, 200]),
    ],
)
def test_time_goes_on_where_the_clock_does_not(stamps, expected):
    assert shifted(stamps) == expected


def test_a_gap_with_sound_is_a_gap():
    stamps = [0, 50, 3000, 3050]
    assert shifted(stamps) == [0, 50, 100, 150]
    assert shifted(stamps, sound=[(0, 3000)]) == stamps
    assert shifted(stamps, sound=[(0, 100), (2900, 3000)]) == [0, 50, 100, 150]
    assert shifted(stamps, may_jump=False) == stamps


def test_a_recording_slower_than_any_gap_has_its_own_pace():
    stamps = list(range(0, 30_000, 3000))
    assert shifted(stamps) == stamps
