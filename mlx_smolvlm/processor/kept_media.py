"""Images and videos of a conversation: their place in the prompt is remembered, pixels are made when needed."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..media.images import describe_source
from ..media.urls import URL_SCHEME
from ..options import MediaOptions
from .content_items import OptionedSource
from .messages import check_media, read_conversation
from .prompt_media import Clip, FrameSeries, LoadedImage, PlannedImage, PlannedVideo
from .sampled_video import SampledVideo
from .tiling import Layout

Content = list[dict[str, Any]]
OpenMedium = LoadedImage | Clip | FrameSeries
Opener = Callable[[Any, MediaOptions], OpenMedium]


@dataclass(frozen=True)
class KeptImage(PlannedImage):
    """An image that was opened for an earlier prompt."""

    name: str
    layout: Layout
    digest: bytes
    reopen: Callable[[], OpenMedium] | None = None

    def tiles(self, check_cancelled: Callable[[], None]) -> Iterator[np.ndarray]:
        """Open it once more and cut it: (tile_size, tile_size, 3) uint8 each."""
        return _tiles(self, check_cancelled)


@dataclass
class KeptVideo(PlannedVideo):
    """A video that was opened for an earlier prompt."""

    name: str
    timestamps_s: Sequence[float]
    duration_s: float
    digest: bytes
    reopen: Callable[[], OpenMedium] | None = None

    @property
    def shown(self) -> tuple[str, Sequence[float], float]:
        """Name, time stamps and length."""
        return self.name, self.timestamps_s, self.duration_s

    def tiles(self, check_cancelled: Callable[[], None]) -> Iterator[np.ndarray]:
        """Open it once more and decode it: (tile_size, tile_size, 3) uint8 each."""
        return _tiles(self, check_cancelled)

    def shorten(self, num_frames: int) -> None:
        """Keep the first frames only."""
        self.timestamps_s = self.timestamps_s[:num_frames]


class KeptMedium:
    """A source that is opened for its first prompt, and after that only if its pixels are needed.

    Attributes:
        kind: "image" or "video".
        source: what the caller passed; once opened, what it can be opened from again: the full path of a file, the
            pixels of an image that came from elsewhere, the address of a video.
        options: how it is read.
        known: what it was in the last prompt; None before there was one.
    """

    def __init__(self, kind: str, source: Any, options: MediaOptions, known: KeptImage | KeptVideo | None = None):
        self.kind = kind
        self.source = source
        self.options = options
        self.known = known
        self._in_prompt: OpenMedium | KeptImage | KeptVideo | None = None

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return describe_source(self.source) if self.known is None else self.known.name

    def open(self, opener: Opener) -> OpenMedium | KeptImage | KeptVideo:
        """What stands for it in a prompt; `opener` opens the source if it is needed."""
        if self.known is None:
            medium = opener(self.source, self.options)
            if not isinstance(medium, LoadedImage):
                _ = medium.digest  # of the whole video, even if it turns out to break off
            self._in_prompt = medium
        else:
            self._in_prompt = replace(self.known, reopen=lambda: opener(self.source, self.options))
        return self._in_prompt

    def close(self) -> None:
        """After the prompt was read: remember what it was, and release what is open."""
        medium, self._in_prompt = self._in_prompt, None
        if isinstance(medium, KeptVideo):
            self.known = replace(medium, reopen=None)  # it may have been shortened
        elif isinstance(medium, LoadedImage):
            if "digest" in vars(medium):  # else it was not read to its end, and making it takes as long as resizing
                self.known = KeptImage(medium.name, medium.layout, medium.digest)
            self.source = _path_of(self.source) or medium.image or self.source
        elif isinstance(medium, Clip | FrameSeries):
            self.known = KeptVideo(*medium.shown, medium.digest)
            self.source = _path_of(self.source) or self.source


def kept_content(text: str, images: Any, videos: Any, options: MediaOptions) -> Content:
    """A question in Hugging Face form, its media in their places as `KeptMedium` objects.

    Raises:
        ValueError: an empty question, media that are no list, or as many media as markers are needed.
    """
    sources = {}
    for kind, media in (("image", images), ("video", videos)):
        sources[kind] = [
            source if isinstance(source, KeptMedium) else KeptMedium(kind, source, options)
            for source in check_media(f"{kind}s", media)
        ]
    conversation = read_conversation(text, sources["image"], sources["video"])
    unplaced = {kind: iter(media) for kind, media in sources.items()}
    return [
        item if item["type"] == "text" else {"type": item["type"], item["type"]: next(unplaced[item["type"]])}
        for item in conversation.messages[0]["content"]
    ]


def resolved_source(optioned: OptionedSource, options: MediaOptions) -> tuple[Any, MediaOptions]:
    """A source and how it is read. Raises ValueError for one whose pixels or frames are chosen already."""
    source = optioned.source
    if isinstance(source, KeptMedium | SampledVideo):
        name = source.name if isinstance(source, SampledVideo) else f"the {source.kind} of an earlier question"
        raise ValueError(
            f"{name} cannot be read with {', '.join(optioned.options)}: what is shown of it is chosen already; "
            "leave that out of its item"
        )
    return source, optioned.resolve(options)


def _path_of(source: Any) -> str | None:
    """The full path of a source that is a file."""
    if not isinstance(source, str | os.PathLike):
        return None
    text = os.fsdecode(source)
    scheme = URL_SCHEME.match(text) if isinstance(source, str) else None
    if scheme:
        return text if scheme[0].lower() == "file" else None
    return str(Path(text).expanduser().absolute())


def _tiles(kept: KeptImage | KeptVideo, check_cancelled: Callable[[], None]) -> Iterator[np.ndarray]:
    if kept.reopen is None:
        raise ValueError(f"{kept.name} is closed")
    medium = kept.reopen()
    if medium.digest != kept.digest:
        raise ValueError(f"{kept.name} has changed since it was first asked about; ask about it as a new one")
    yield from islice(medium.tiles(check_cancelled), kept.num_tiles)
