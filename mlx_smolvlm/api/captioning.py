"""Captions of a live source: sliding windows of its newest frames, described one after the other."""

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from threading import Event
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from ..engine.answer import cancel_check, check_options, check_pair
from ..model.smolvlm import SmolVLM
from ..options import (
    GenerationOptions,
    MediaOptions,
    OptionKeywords,
    is_between,
    is_whole,
    quoted,
    refuse_options,
    resolve_options,
)
from ..processor.content_items import OptionedSource
from ..processor.messages import Message, check_continues, read_conversation, read_rendered
from ..processor.processor import Processor
from .caption_steps import Caption, CaptionQuestion, WindowTimes, caption_steps
from .generation import GenerationResponse

if TYPE_CHECKING:
    from ..media.live.frame_buffer import FrameBuffer
    from ..media.live.pushed import PushedFrames

WAIT_S = 0.05  # how long a wait may last before the cancel event is looked at
MAX_TIMING_S = 1e6  # of windows and time-outs: eleven days
PUSHED = "the frames"  # what messages call those that a program hands over


def stream_captions(
    model: SmolVLM,
    processor: Processor,
    source: str | os.PathLike[str],
    messages_or_prompt: str | Sequence[Message],
    *,
    window_s: float = 10.0,
    every_s: float | None = None,
    realtime: bool = False,
    stall_timeout_s: float = 8.0,
    retries: int = 5,
    options: GenerationOptions | None = None,
    media_options: MediaOptions | None = None,
    cancel: Event | None = None,
    **keywords: Unpack[OptionKeywords],
) -> Generator[Caption, None, None]:
    """Describe a video again and again while it runs.

    Each caption is about the last `window_s` seconds; the model sees them as a video of that length. While it works,
    and while the consumer holds a caption, a thread goes on reading. Files wait for the model, so that every window
    is described. Live sources do not: if the model is late, the next window ends with the newest frame, and frames
    that no window shows are counted. Frames that lie in several windows are encoded once.

    Args:
        model: from `load`.
        processor: from `load`.
        source: a file, a named pipe, `-` for standard input, `camera`, `camera:N` or N, `screen`, `/dev/videoN`,
            `FORMAT:NAME` for a device of FFmpeg, or an address (rtsp, http, https, tcp, udp, rtmp, srt, ...), also one
            of the local network. An http address is live unless the server states a length.
        messages_or_prompt: the question, or chat messages in Hugging Face format with one video item without a source.
        window_s: length of a window.
        every_s: time from one window's end to the next one's; None is `window_s`, so that they join.
        realtime: play a file or pipe at its own pace, as a live source.
        stall_timeout_s: seconds without data after which a network source reconnects, and any other is an error.
        retries: most reconnections in a row; 0 for none. A source that has never given a frame does not reconnect.
        options, media_options, keywords: as in `stream_generate`. Of the media options only `fps`, `max_frames` and
            `fetch_policy` are used, and the others refused; long windows have fewer frames a second. Of the policy all
            but the time limits count.
        cancel: when set, the captions end, without the one in flight.

    Options are checked at once; the source is opened at the first `next()`. Lost connections are reported with
    `logging`. Closing the generator ends the thread.

    Yields:
        A caption per window that has a new frame. At the end of the source, one more for the frames that are left.

    Raises:
        ValueError: options out of range, what `read_source` refuses, or a source that cannot be read, stalls or is
            lost for good.
        FileNotFoundError: no such file.
        TypeError: an unknown option, a source that is neither text nor a path, or no model with its processor.
    """
    from ..media.live.naming import read_source  # what only live sources need
    from ..media.live.reader import LiveReader

    check_pair(model, processor)
    options, media_options = resolve_options(options, media_options, keywords)
    check_timing(window_s, every_s, stall_timeout_s, retries)
    cancel_check(cancel)  # refuses what is no event
    check_caption_options(options, media_options)
    _check_question(messages_or_prompt, source, options)
    check_options(model, options)
    named = read_source(source, media_options.fetch_policy)

    def open_reader(buffer: "FrameBuffer", sample_interval_s: float) -> LiveReader:
        return LiveReader(
            named,
            buffer,
            processor.video_tile,
            sample_interval_s=sample_interval_s,
            realtime=realtime,
            stall_timeout_s=stall_timeout_s,
            retries=retries,
            wanted_edge=processor.config.image.tile_size,
        )

    windows = WindowTimes(named.name, window_s, every_s or window_s, stall_timeout_s, WAIT_S, cancel or Event())
    question = CaptionQuestion(model, processor, messages_or_prompt, options, media_options, cancel)
    return _captions_alone(caption_steps(question, windows, open_reader)[1])


def caption_pushed_frames(
    model: SmolVLM,
    processor: Processor,
    messages_or_prompt: str | Sequence[Message],
    make_tile: Callable[[Any], np.ndarray],
    *,
    window_s: float = 10.0,
    every_s: float | None = None,
    options: GenerationOptions | None = None,
    media_options: MediaOptions | None = None,
    cancel: Event | None = None,
    **keywords: Unpack[OptionKeywords],
) -> "tuple[PushedFrames, Generator[Caption | GenerationResponse | None, None, None]]":
    """Describe frames that a program hands over, as `stream_captions` describes a camera, without waiting.

    Args:
        make_tile: makes a tile of whatever is pushed as a frame, with `processor.video_tile` in the end.
        model, processor, messages_or_prompt, window_s, every_s, options, media_options, cancel, keywords: as in
            `stream_captions`.

    Returns:
        Where to push frames, from any thread; and steps: a caption, a token of the one that is being made, or None
        while no window is full, for the caller to do something else.

    Raises:
        ValueError: options out of range.
    """
    from ..media.live.pushed import PushedFrames

    check_pair(model, processor)
    options, media_options = resolve_options(options, media_options, keywords)
    check_timing(window_s, every_s, 1.0, 0)
    check_caption_options(options, media_options)
    _check_question(messages_or_prompt, PUSHED, options)
    check_options(model, options)

    def open_reader(buffer: "FrameBuffer", sample_interval_s: float) -> PushedFrames:
        return PushedFrames(buffer, make_tile, sample_interval_s=sample_interval_s)

    windows = WindowTimes(PUSHED, window_s, every_s or window_s, 1.0, 0.0, cancel or Event())
    question = CaptionQuestion(model, processor, messages_or_prompt, options, media_options, cancel)
    return caption_steps(question, windows, open_reader)


def _check_question(
    messages_or_prompt: str | Sequence[Message], source: str | os.PathLike[str], options: GenerationOptions
) -> None:
    """Refuse here, rather than when the first window is full, what cannot be asked about a video."""
    read = read_conversation if options.apply_chat_template else read_rendered
    asked = read(messages_or_prompt, [], [source])
    if options.continue_final_message:
        check_continues(asked)
    for video in asked.videos:
        if isinstance(video, OptionedSource):
            names = ", ".join(video.options)
            raise ValueError(
                f"the video item has {names}, but windows are sampled from the source; pass it as an option"
            )


def check_caption_options(options: GenerationOptions, media_options: MediaOptions) -> None:
    """Raise ValueError for options that mean nothing where a source is watched."""
    refuse_options(options, ("logprobs",), "a caption has no place for log probabilities")
    refuse_options(
        media_options,
        ("do_image_splitting", "longest_edge", "max_pixels", "page", "start_s", "end_s", "hardware_decoding"),
        "of a source that is watched, the frames are taken as they come",
    )


def check_timing(window_s: float, every_s: float | None, stall_timeout_s: float, retries: int) -> None:
    """Raise ValueError for what `stream_captions` would refuse."""
    for name, seconds in (("window", window_s), ("every", every_s), ("stall timeout", stall_timeout_s)):
        if seconds is not None and not (is_between(seconds, 0, MAX_TIMING_S) and seconds > 0):
            raise ValueError(
                f"{name} is {quoted(seconds)}, expected a positive number of seconds, at most {MAX_TIMING_S:g}"
            )
    if not is_whole(retries, 0):
        raise ValueError(f"retries is {quoted(retries)}, expected 0 or more")


def _captions_alone(
    steps: Generator[Caption | GenerationResponse | None, None, None],
) -> Generator[Caption, None, None]:
    with closing(steps):
        for step in steps:
            if isinstance(step, Caption):
                yield step
