"""Captions of live sources: which windows, what the model is shown of them, and a clean end."""

import time
from contextlib import closing
from datetime import datetime, timedelta
from itertools import pairwise
from threading import Event, Timer

import mlx.core as mx
import numpy as np
import pytest
from support.live_servers import http, nothing_left_behind, serving, stall, transport_stream
from support.media import video_path
from support.slow_cases import slow

from mlx_smolvlm import stream_captions
from mlx_smolvlm.api import caption_steps

ENDLESS = "lavfi:testsrc2=size=64x48:rate=30"


@pytest.fixture
def pair(loaded):
    """A tiny model and its processor: one frame a second, at most 64."""
    return loaded("smolvlm_256m")


@pytest.fixture
def captions(pair):
    """A function from a source and options to its captions, of two tokens each."""

    def captions_of(source, max_tokens=2, **options):
        return stream_captions(*pair, str(source), "What happens?", max_tokens=max_tokens, **options)

    return captions_of


@pytest.fixture
def shown(monkeypatch):
    """The videos that the model is shown."""
    videos = []
    original = caption_steps.stream_generate

    def spy(*arguments, **options):
        videos.extend(options.get("videos", []))
        return original(*arguments, **options)

    monkeypatch.setattr(caption_steps, "stream_generate", spy)
    return videos


def spans(captions):
    return [(round(caption.start_s, 2), round(caption.end_s, 2)) for caption in captions]


# Windows of a file of 5 s with 10 frames a second


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"window_s": 2}, [(0, 2), (2, 4), (4, 5)]),
        ({"window_s": 2, "every_s": 1}, [(0, 2), (1, 3), (2, 4), (3, 5)]),
        ({"window_s": 1, "every_s": 2}, [(0, 1), (2, 3), (4, 5)]),
        ({"window_s": 60}, [(0, 5)]),
    ],
)
def test_windows_of_a_file_follow_each_other_to_its_end(captions, options, expected):
    with nothing_left_behind():
        seen = list(captions(video_path("clip"), fps=4, **options))
    assert spans(seen) == expected
    assert {caption.total_dropped for caption in seen} == {0}


def test_the_model_sees_a_window_as_a_video_of_its_length(captions, shown, pair):
    """As many frames as the reference takes of a video of three seconds, the first and the last at its ends."""
    tile_size = pair[1].config.image.tile_size
    list(captions(video_path("clip"), window_s=3, every_s=1.5))
    assert [video.duration_s for video in shown] == [3, 3, 2]
    for video in shown[:2]:
        assert video.timestamps_s == pytest.approx([0, 1.5, 3], abs=0.01)
        assert [int(second) for second in video.timestamps_s] == [0, 1, 2]
        assert [(tile.shape, tile.dtype) for tile in video.frames] == [((tile_size, tile_size, 3), np.uint8)] * 3


def test_windows_between_two_samples_have_one_frame_less_or_are_passed_over(captions):
    assert [caption.frames for caption in captions(video_path("clip"), window_s=3, every_s=0.8)] == [3, 2, 3]


def test_the_last_window_has_the_last_frame(captions, shown):
    list(captions(video_path("clip"), window_s=2))
    assert shown[-1].timestamps_s == pytest.approx([0, 0.9])


def test_each_frame_is_encoded_once(captions, shown, pair, monkeypatch):
    model, encoded = pair[0], []
    original = type(model).image_features

    def counting(self, tiles):
        encoded.append(len(tiles))
        return original(self, tiles)

    monkeypatch.setattr(type(model), "image_features", counting)
    list(captions(video_path("clip"), window_s=2, every_s=0.5, fps=4))
    frames = {frame.tobytes() for video in shown for frame in video.frames}
    assert sum(encoded) == len(frames) < sum(len(video.frames) for video in shown) / 2


def test_long_windows_keep_to_the_checkpoints_number_of_frames(captions):
    (caption,) = captions(video_path("clip"), window_s=5, fps=10, max_frames=6)
    assert caption.frames <= 6


def test_a_caption_says_when_it_was(captions):
    caption = next(captions(video_path("clip"), window_s=1))
    moment = datetime.fromisoformat(caption.wall_time)
    assert moment.utcoffset() == timedelta(0)
    assert abs(moment.timestamp() - time.time()) < 30
    assert caption.finish_reason == "length"
    assert caption.generation_s > 0


# Live sources


@pytest.mark.slow
def test_a_slow_consumer_gets_the_newest_window_and_the_count_of_what_it_missed(captions):
    options = {"window_s": 0.5, "fps": 20, "max_frames": 10, "max_tokens": 1}
    with nothing_left_behind(), closing(captions(ENDLESS, **options)) as stream:
        seen = []
        for pause_s in (0, 1, 1):
            time.sleep(pause_s)
            seen.append(next(stream))
    for before, after in pairwise(seen):
        interval_s = 0.5 / 9  # ten frames in half a second, one at each end
        assert after.dropped_frames == max(0, round((after.start_s - before.end_s) / interval_s) - 1)
    assert seen[-1].total_dropped == sum(caption.dropped_frames for caption in seen) > 5
    assert max(caption.lag_s for caption in seen) < 0.5


@pytest.mark.slow
def test_memory_stays_flat(captions):
    with closing(captions(ENDLESS, window_s=0.1, every_s=0.05, fps=30, max_tokens=1)) as stream:
        held = []
        for _ in range(30):
            next(stream)
            held.append(mx.get_active_memory())
    assert max(held[20:]) <= 1.02 * max(held[10:20])


def test_the_prompt_may_be_messages(captions, pair, shown):
    content = [{"type": "video"}, {"type": "text", "text": "What happens?"}]
    stream = stream_captions(
        *pair, str(video_path("short")), [{"role": "user", "content": content}], window_s=1, max_tokens=2
    )
    assert [c.text for c in stream] == [c.text for c in captions(video_path("short"), window_s=1)]


# The end


@pytest.mark.parametrize("moment", ["before the first caption", "between two", "during one"])
def test_the_cancel_event_ends_it(captions, moment):
    cancel = Event()
    with nothing_left_behind(), serving(stall(transport_stream(2))) as port:
        source = ENDLESS if moment != "before the first caption" else f"tcp://127.0.0.1:{port}"
        tokens = 2 if moment != "during one" else 4000
        stream = captions(source, window_s=0.1 if source == ENDLESS else 60, cancel=cancel, max_tokens=tokens)
        if moment == "between two":
            next(stream)
            cancel.set()
        else:
            timer = Timer(0.5, cancel.set)
            timer.start()
        began = time.monotonic()
        assert list(stream) == []
        assert time.monotonic() - began < 4  # the wait that is ended would take 8
        if moment != "between two":
            timer.join()


def test_closing_ends_it(captions):
    with nothing_left_behind():
        stream = captions(ENDLESS, window_s=0.1)
        next(stream)
        began = time.monotonic()
        stream.close()
    assert time.monotonic() - began < 4


def trickle(connection):
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("treatment", "scheme"), [slow((trickle, "tcp")), slow((http(trickle), "http")), slow((trickle, "http"))]
)
def test_a_source_that_gives_bytes_but_no_frames_is_given_up(captions, treatment, scheme):
    with nothing_left_behind(4), serving(treatment) as port, pytest.raises(ValueError, match="no frame came"):
        next(captions(f"{scheme}://127.0.0.1:{port}", stall_timeout_s=0.4))


def test_a_source_without_frames_is_given_up(captions):
    with nothing_left_behind(4), pytest.raises(ValueError, match=r"nothing came for 0\.5 s"):
        next(captions("udp://127.0.0.1:0", stall_timeout_s=0.5))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"window_s": 0}, "window is 0"),
        ({"every_s": -1}, "every is -1"),
        ({"every_s": 0}, "every is 0"),
        ({"window_s": float("nan")}, "window is nan"),
        ({"stall_timeout_s": 0}, "stall timeout is 0"),
        ({"retries": -1}, "retries is -1"),
        ({"fps": 0}, "fps is 0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"temperature": -1}, "temperature"),
        ({"continue_final_message": True}, "needs a conversation that ends with text of the assistant"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_opened(captions, options, problem):
    with pytest.raises(ValueError, match=problem):
        captions(video_path("clip"), **options)


def test_a_prompt_without_a_place_for_the_video_is_refused(pair):
    with pytest.raises(ValueError, match="1 of the videos has no place in the prompt; add a video item"):
        stream_captions(*pair, str(video_path("clip")), [{"role": "user", "content": "What happens?"}])
