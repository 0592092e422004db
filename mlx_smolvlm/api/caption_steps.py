"""A caption of each window of a source, and what happens between two of them."""

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import TYPE_CHECKING, Protocol, TypeVar

from ..engine.feature_cache import FeatureCache
from ..model.smolvlm import SmolVLM
from ..options import GenerationOptions, MediaOptions
from ..processor.messages import Message
from ..processor.processor import Processor
from ..processor.sampled_video import SampledVideo
from .caption_windows import CaptionWindow, caption_windows
from .generation import GenerationResponse, stream_generate

if TYPE_CHECKING:
    from ..media.live.frame_buffer import FrameBuffer


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


class _Reader(Protocol):
    """What fills the buffer."""

    def start(self) -> None:
        """Begin to fill it."""

    def close(self) -> None:
        """Stop."""


_R = TypeVar("_R", bound=_Reader)


@dataclass(frozen=True)
class WindowTimes:
    """The arguments of `stream_captions` that say which windows there are."""

    name: str
    window_s: float
    every_s: float
    stall_timeout_s: float
    wait_s: float
    cancel: Event


@dataclass(frozen=True)
class CaptionQuestion:
    """What is asked about each window."""

    model: SmolVLM
    processor: Processor
    messages_or_prompt: str | Sequence[Message]
    options: GenerationOptions
    media_options: MediaOptions
    cancel: Event | None

    def answer(self, video: SampledVideo, features: FeatureCache) -> Generator[GenerationResponse, None, None]:
        """The answer about one window, as `stream_generate` makes it."""
        return stream_generate(
            self.model,
            self.processor,
            self.messages_or_prompt,
            videos=[video],
            options=self.options,
            media_options=self.media_options,
            feature_cache=features,
            cancel=self.cancel,
        )


def caption_steps(
    question: CaptionQuestion, windows: WindowTimes, open_reader: "Callable[[FrameBuffer, float], _R]"
) -> tuple[_R, Generator[Caption | GenerationResponse | None, None, None]]:
    """The reader, not started, and the captions of its windows, with what happens between them."""
    from ..media.live.frame_buffer import FrameBuffer

    config = question.processor.config.video_for(question.media_options)
    window_s, every_s = windows.window_s, windows.every_s
    # As many frames as the reference takes of a video of this length, the first and the last at its ends.
    num_frames = max(1, round(min(config.fps * window_s, config.max_frames)))
    sample_interval_s = window_s / max(1, num_frames - 1)
    features = FeatureCache(2 * num_frames * _feature_bytes(question.model, question.processor))
    buffer = FrameBuffer(math.ceil((window_s + min(every_s, window_s)) / sample_interval_s) + 2)
    reader = open_reader(buffer, sample_interval_s)
    found = caption_windows(
        buffer,
        windows.name,
        window_s,
        every_s,
        sample_interval_s,
        num_frames,
        windows.stall_timeout_s,
        windows.wait_s,
        windows.cancel,
    )
    return reader, _captions(reader, found, lambda video: question.answer(video, features), windows.name)


def _captions(
    reader: _Reader,
    windows: Iterator[CaptionWindow | None],
    describe: Callable[[SampledVideo], Generator[GenerationResponse, None, None]],
    name: str,
) -> Generator[Caption | GenerationResponse | None, None, None]:
    dropped = 0
    with closing(reader):
        reader.start()
        for window in windows:
            if window is None:
                yield None
                continue
            began_s = time.monotonic()
            lag_s = began_s - window.frames[-1].arrived_s
            video = SampledVideo(
                [frame.tile for frame in window.frames],
                window.timestamps_s,
                window.end_s - window.start_s,
                are_tiles=True,
                name=name,
            )
            text = finish_reason = ""
            with closing(describe(video)) as steps:
                for step in steps:
                    text += step.text
                    finish_reason = step.finish_reason or ""
                    yield step
            if finish_reason == "cancelled":
                return
            yield Caption(
                start_s=window.start_s,
                end_s=window.end_s,
                text=text,
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
