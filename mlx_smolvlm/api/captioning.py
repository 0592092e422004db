"""Captions of a live source: sliding windows of its newest frames, described one after the other."""

import logging
import math
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import TYPE_CHECKING, Unpack

from ..engine.answer import cancel_check, check_options, check_pair
from ..engine.feature_cache import FeatureCache
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
from ..processor.sampled_video import SampledVideo
from .generation import GenerationResponse, stream_generate

if TYPE_CHECKING:
    from ..media.live.frame_buffer import FrameBuffer, LiveFrame
    from ..media.live.reader import LiveReader

LOG = logging.getLogger(__name__)
WAIT_S = 0.05  # how long a wait may last before the cancel event is looked at
MAX_TIMING_S = 1e6  # of windows and time-outs: eleven days
SLACK_S = 0.5  # beyond the stall time-out, within which a source reports its own stall


@dataclass(frozen=True)
class Caption:
    """The model's answer about one window of a source. Times are in seconds.

    Attributes:
        start_s, end_s: the window, counted from the source's first frame.
        text: the answer.
        frames: frames that the model saw.
        dropped_frames: frames that were sampled since the last caption, and that no caption shows, because the
            model was slower than the source.
        total_dropped: the same since the beginning.
        lag_s: age of the window's newest frame when the model began.
        generation_s: from then on to the last token.
        finish_reason: "stop" or "length", as in `GenerationResponse`.
        wall_time: when the window's newest frame came, ISO 8601 with the zone UTC.
    """

    start_s: float
    end_s: float
    text: str
    frames: int
    dropped_frames: int
    total_dropped: int
    lag_s: float
    generation_s: float
    finish_reason: str
    wall_time: str


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
    from ..media.live.frame_buffer import FrameBuffer  # what only live sources need
    from ..media.live.naming import read_source
    from ..media.live.reader import LiveReader

    check_pair(model, processor)
    options, media_options = resolve_options(options, media_options, keywords)
    check_timing(window_s, every_s, stall_timeout_s, retries)
    cancel_check(cancel)  # refuses what is no event
    check_caption_options(options, media_options)
    every_s = every_s or window_s
    config = processor.config.video_for(media_options)
    read = read_conversation if options.apply_chat_template else read_rendered
    asked = read(messages_or_prompt, [], [source])  # refused here rather than when the first window is full
    if options.continue_final_message:
        check_continues(asked)
    for video in asked.videos:
        if isinstance(video, OptionedSource):
            names = ", ".join(video.options)
            raise ValueError(
                f"the video item has {names}, but windows are sampled from the source; pass it as an option"
            )
    check_options(model, options)
    named = read_source(source, media_options.fetch_policy)
    # As many frames as the reference takes of a video of this length, the first and the last at its ends.
    num_frames = max(1, round(min(config.fps * window_s, config.max_frames)))
    sample_interval_s = window_s / max(1, num_frames - 1)
    features = FeatureCache(2 * num_frames * _feature_bytes(model, processor))

    def describe(video: SampledVideo) -> Iterator[GenerationResponse]:
        return stream_generate(
            model,
            processor,
            messages_or_prompt,
            videos=[video],
            options=options,
            media_options=media_options,
            feature_cache=features,
            cancel=cancel,
        )

    buffer = FrameBuffer(math.ceil((window_s + min(every_s, window_s)) / sample_interval_s) + 2)
    reader = LiveReader(
        named,
        buffer,
        processor.video_tile,
        sample_interval_s=sample_interval_s,
        realtime=realtime,
        stall_timeout_s=stall_timeout_s,
        retries=retries,
        wanted_edge=processor.config.image.tile_size,
    )
    windows = _windows(
        buffer, named.name, window_s, every_s, sample_interval_s, num_frames, stall_timeout_s, cancel or Event()
    )
    return _captions(reader, windows, describe, named.name)


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


@dataclass(frozen=True)
class _Window:
    """Frames of a stretch of the source, and how many were dropped so far."""

    start_s: float
    end_s: float
    frames: "list[LiveFrame]"
    total_dropped: int

    @property
    def timestamps_s(self) -> list[float]:
        """When each frame is shown, from the window's start; a frame at its end belongs to its last second."""
        last_s = max(0.0, math.ceil(self.end_s - self.start_s) - 0.001)
        return [min(max(0.0, round(frame.time_s - self.start_s, 6)), last_s) for frame in self.frames]


def _windows(
    buffer: "FrameBuffer",
    name: str,
    window_s: float,
    every_s: float,
    sample_interval_s: float,
    num_frames: int,
    stall_timeout_s: float,
    cancel: Event,
) -> Iterator[_Window]:
    """The windows that have frames, each as soon as it is full and asked for; until the source ends or `cancel`."""
    shown_s, end_s = -1.0, window_s
    while True:
        while not buffer.wait_for(end_s, WAIT_S) and not cancel.is_set():
            if buffer.silence_s() > stall_timeout_s + SLACK_S:
                raise ValueError(f"{name}: no frame came for {stall_timeout_s:g} s")
        if cancel.is_set():
            return
        is_late = buffer.drops and buffer.newest_s - end_s > sample_interval_s
        is_last = buffer.end_s is not None and (is_late or end_s >= buffer.end_s)
        end_s = round(max(end_s, buffer.newest_sample_s) if is_late else end_s, 6)
        start_s = round(max(0.0, end_s - window_s), 6)
        frames = buffer.take(start_s, end_s, end_s + every_s - window_s)[-num_frames:]
        if is_last:
            end_s = buffer.end_s or end_s
        if frames and frames[-1].sample_s > shown_s:
            shown_s = frames[-1].sample_s
            yield _Window(start_s, end_s, frames, buffer.dropped)
        if is_last:
            LOG.info("%s has ended", name)
            return
        end_s += every_s


def _captions(
    reader: "LiveReader",
    windows: Iterator[_Window],
    describe: Callable[[SampledVideo], Iterator[GenerationResponse]],
    name: str,
) -> Generator[Caption, None, None]:
    dropped = 0
    with closing(reader):
        reader.start()
        for window in windows:
            began_s = time.monotonic()
            lag_s = began_s - window.frames[-1].arrived_s
            video = SampledVideo(
                [frame.tile for frame in window.frames],
                window.timestamps_s,
                window.end_s - window.start_s,
                are_tiles=True,
                name=name,
            )
            steps = list(describe(video))
            finish_reason = steps[-1].finish_reason or ""
            if finish_reason == "cancelled":
                return
            yield Caption(
                start_s=window.start_s,
                end_s=window.end_s,
                text="".join(step.text for step in steps),
                frames=len(window.frames),
                dropped_frames=window.total_dropped - dropped,
                total_dropped=window.total_dropped,
                lag_s=lag_s,
                generation_s=time.monotonic() - began_s,
                finish_reason=finish_reason,
                wall_time=_wall_time(window.frames[-1].arrived_s),
            )
            dropped = window.total_dropped


def _feature_bytes(model: SmolVLM, processor: Processor) -> int:
    """Most memory that the features of one tile take."""
    return processor.config.image_seq_len * model.config.text.hidden_size * 4


def _wall_time(monotonic_s: float) -> str:
    moment = datetime.now(UTC) - timedelta(seconds=time.monotonic() - monotonic_s)
    return moment.isoformat(timespec="milliseconds")
