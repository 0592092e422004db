"""The newest frames of a live source, and a clock that ascends whatever its time stamps do."""

import numpy as np

from mlx_smolvlm.media.live.frame_buffer import FrameBuffer, LiveFrame, StreamClock


def test_the_newest_frames_win_and_unseen_ones_are_counted():
    buffer = FrameBuffer(3)
    buffer.drops = True
    for second in range(3):
        buffer.put(LiveFrame(second, second, np.zeros(0), 0.0))
    assert [frame.time_s for frame in buffer.take(0, 2, 0)] == [0, 1, 2]
    for second in range(3, 8):
        buffer.put(LiveFrame(second, second, np.zeros(0), 0.0))
    assert [frame.time_s for frame in buffer.take(5, 7, 8)] == [5, 6, 7]
    assert buffer.dropped == 2  # seconds 3 and 4; 0 to 2 were seen


def test_a_clock_that_jumps_goes_on_by_what_has_passed():
    clock = StreamClock()
    stamps = [100.0, 100.5, 7.0, 7.5, 9000.0, None, 9001.0]
    seen = [clock.time_s(stamp, 50 + 0.5 * i, is_live=True) for i, stamp in enumerate(stamps)]
    assert seen == [0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]


def test_a_long_gap_within_a_file_is_a_gap():
    clock = StreamClock()
    assert [clock.time_s(stamp, 50.0, is_live=False) for stamp in (3.0, 63.0, 64.0)] == [0, 60, 61]


def test_joined_recordings_in_a_file_go_on_by_one_frame():
    """The model may be slow: what passes while frames are read is no time of the film."""
    clock = StreamClock()
    stamps = [5.0, 5.5, 6.0, 1.0, 1.5, 90_000.0, 90_000.5]
    seen = [clock.time_s(stamp, 50.0 + 9 * i, is_live=False) for i, stamp in enumerate(stamps)]
    assert seen == [0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    clock = StreamClock()
    assert [clock.time_s(stamp, 50.0, is_live=False, longest_gap_s=10.0) for stamp in (3.0, 4.0, 24.0)] == [0, 1, 2]


def test_bytes_without_a_picture_are_a_sign_of_life(monkeypatch):
    now_s = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now_s[0])
    buffer = FrameBuffer(3)
    now_s[0] += 20
    assert buffer.silence_s() == 20
    buffer.note_data()
    assert buffer.silence_s() == 0
