"""Captions of frames that a program hands over."""

import time

import av
import numpy as np
import pytest
from support.bridge import answer_of, bgra
from support.layout import PACKAGE
from support.media import video_path

from mlx_smolvlm import stream_captions

PICTURE = PACKAGE / "demo" / "picture.png"
QUESTION = "What color is the shape?"


def frames_of(pattern):
    """Frames of 64 x 48 as a camera gives them."""
    for number in pattern:
        pixels = np.zeros((48, 64, 3), np.uint8)
        pixels[:, : 1 + number % 60] = 200
        yield bgra(pixels, padding=16)


def test_captions_of_frames_come_in_order_and_end(program):
    number = program.send("captions", model=1, prompt="What happens?", window_s=2, options={"max_tokens": 3})
    while program.next_event() != {"event": "started", "id": number}:
        pass
    for index, (data, layout) in enumerate(frames_of(range(50))):
        assert program.engine.push_frame(number, data, **layout, seconds=100 + index / 10)
    finish = program.send("finish_frames", source=number)
    events = program.events(number)
    captions = [event["caption"] for event in events if event["event"] == "caption"]
    assert events[-1]["event"] == "end" and program.events(finish)
    # All frames came at once, so the first window has the newest of them.
    assert captions[-1]["end_s"] == pytest.approx(5, abs=0.01)
    assert captions[-1]["total_dropped"] == sum(caption["dropped_frames"] for caption in captions)
    assert not program.engine.push_frame(number, data, **layout, seconds=200)


def test_answers_are_made_while_captions_wait_for_frames(program, expected):
    number = program.send("captions", model=1, prompt="What happens?", window_s=60)
    assert program.next_event()["event"] == "started"
    began_s = time.monotonic()
    events = program.ask("respond", model=1, prompt=QUESTION, images=[{"path": str(PICTURE)}])
    assert answer_of(events) == expected(QUESTION, images=[PICTURE])
    assert time.monotonic() - began_s < 5
    program.engine.cancel(number)
    assert [event["event"] for event in program.events(number)] == ["end"]


def test_a_frame_that_is_no_image_ends_its_captions_with_an_error(program):
    number = program.send("captions", model=1, prompt="What happens?", window_s=1)
    assert program.next_event()["event"] == "started"
    assert not program.engine.push_frame(number, b"123", 64, 48, 256, "bgra", 0.0)
    event = program.events(number)[-1]
    assert event["kind"] == "invalid_request" and "has 3 bytes, expected 12288" in event["message"]


def test_pushed_frames_equal_those_of_a_file(program, demo):
    """The same windows, of the same frames, as `stream_captions` sees."""
    options = {"fps": 2, "max_tokens": 8}
    prompt = "Which way does the shape move?"
    wanted = list(stream_captions(*demo, str(video_path("clip")), prompt, window_s=2, **options))
    number = program.send("captions", model=1, prompt=prompt, window_s=2, options=options)
    assert program.next_event()["event"] == "started"
    captions = []
    with av.open(str(video_path("clip"))) as container:
        for frame in container.decode(video=0):
            data, layout = bgra(frame.to_ndarray(format="rgb24"), padding=8)
            program.engine.push_frame(number, data, **layout, seconds=float(frame.time))
            if program.engine._handlers.sources[number]._buffer.newest_s >= 2 * len(captions) + 2:
                while True:
                    event = program.next_event()
                    if event["event"] == "caption":
                        captions.append(event["caption"])
                        break
    program.send("finish_frames", source=number)
    captions += [event["caption"] for event in program.events(number) if event["event"] == "caption"]
    assert [(c["start_s"], c["end_s"], c["frames"], c["text"]) for c in captions] == [
        (c.start_s, c.end_s, c.frames, c.text) for c in wanted
    ]
