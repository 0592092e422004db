"""The pictures and videos of a prompt: found, opened and measured, before a pixel is resized.

What each costs in tokens is known from its size or its packets alone, so a prompt that is too long is
refused before any work.
"""

import hashlib
import math
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..media.fetch import DEFAULT_POLICY, stream
from ..media.images import ImageSource, describe_source, load_image, path_of_file_url
from ..media.prefetch import mapped_in_threads
from ..media.urls import URL_SCHEME, decode_data_url
from ..media.video.frames import read_frames
from ..media.video.probing import FrameSample, VideoInfo, choose_frames, probe
from ..options import FetchPolicy, MediaOptions
from .expansion import expand_image, expand_video
from .processor_config import ImageConfig, VideoConfig
from .tiling import Layout, cut_grid, on_grid, plan, squeeze

RESIZING_THREADS = min(4, os.cpu_count() or 1)  # frames in work, each at its full size in memory
VIDEO_POLICY = FetchPolicy(max_bytes=2 * 1024**3, timeout_s=600)


@dataclass(frozen=True)
class Medium:
    """One picture or video of a prompt and what it costs: `image_tokens` = `num_tiles` x image_seq_len."""

    kind: str  # "image" or "video"
    name: str
    num_tiles: int
    image_tokens: int
    layout: str  # for people: "3 x 4 tiles and the global image", "13 frames"


@dataclass(frozen=True)
class SampledVideo:
    """A video whose frames the caller has decoded and chosen, to be passed in place of a path.

    Attributes:
        frames: PIL images or (height, width, 3) uint8 RGB arrays, in order of time.
        timestamps_s: when each is shown, in seconds from the start of the video.
        duration_s: how long the video is.
        are_tiles: the frames are what `Processor.video_tile` returned.
        name: what it is called in messages.

    Raises:
        ValueError: no frames, as many time stamps as frames, or times that do not ascend.
    """

    frames: Sequence[Any]
    timestamps_s: Sequence[float]
    duration_s: float
    are_tiles: bool = False
    name: str = "sampled video"

    def __post_init__(self) -> None:
        if not len(self.frames) or len(self.frames) != len(self.timestamps_s):
            raise ValueError(
                f"{self.name} has {len(self.frames)} frames and {len(self.timestamps_s)} time stamps, "
                "expected at least one frame, and one time stamp each"
            )
        if not all(map(math.isfinite, [*self.timestamps_s, self.duration_s])) or self.duration_s < 0:
            raise ValueError(
                f"{self.name} has time stamps {list(self.timestamps_s)} and a duration of {self.duration_s}, "
                "expected seconds"
            )
        if list(self.timestamps_s) != sorted(self.timestamps_s) or self.timestamps_s[0] < 0:
            raise ValueError(f"{self.name} has time stamps {list(self.timestamps_s)}, expected ascending seconds")


VideoSource = str | os.PathLike[str] | SampledVideo


class PlannedPicture:
    """What a picture's layout alone tells."""

    name: str
    layout: Layout

    @property
    def num_tiles(self) -> int:
        """Tiles that it will be cut into, the global image included."""
        return self.layout.num_tiles

    def expansion(self, image_seq_len: int) -> str:
        """What stands in the prompt for it."""
        return expand_image(self.layout.rows, self.layout.columns, image_seq_len)

    def cost(self, image_seq_len: int) -> Medium:
        """What it will cost, with `image_seq_len` tokens per tile."""
        grid = f"{self.layout.rows} x {self.layout.columns} tiles and the global image"
        shape = grid if self.layout.rows else "one tile"
        return Medium("image", self.name, self.num_tiles, self.num_tiles * image_seq_len, shape)


@dataclass
class Picture(PlannedPicture):
    """A picture that is loaded and planned, not yet resized and cut."""

    name: str
    image: Image.Image
    layout: Layout
    tile_size: int

    @cached_property
    def _on_grid(self) -> Image.Image:
        return on_grid(self.image, self.layout)

    @cached_property
    def digest(self) -> bytes:
        """Equal for equal tiles."""
        return _digest(repr(self.layout).encode(), self._on_grid.tobytes())

    def tiles(self, check_cancelled: Callable[[], None]) -> Iterator[np.ndarray]:
        """Resize and cut: (tile_size, tile_size, 3) uint8 each."""
        check_cancelled()
        yield from cut_grid(self._on_grid, self.layout, self.tile_size)
        _ = self.digest  # needed once all is read: made here, by the thread that works ahead
        del self._on_grid


class PlannedVideo(ABC):
    """What the times of a video's frames alone tell: they are shown one by one, with time stamps."""

    @property
    @abstractmethod
    def shown(self) -> tuple[str, Sequence[float], float]:
        """Name, time stamps of the frames in seconds, length of the whole video in seconds."""

    @property
    def num_tiles(self) -> int:
        """Frames to show."""
        return len(self.shown[1])

    def expansion(self, image_seq_len: int) -> str:
        """What stands in the prompt for it."""
        _, timestamps_s, duration_s = self.shown
        return expand_video(timestamps_s, duration_s, image_seq_len)

    def cost(self, image_seq_len: int) -> Medium:
        """What it will cost, with `image_seq_len` tokens per tile."""
        frames = self.num_tiles
        return Medium("video", self.shown[0], frames, frames * image_seq_len, f"{frames} frame{'s' * (frames > 1)}")


@dataclass
class Clip(PlannedVideo):
    """A video file that is probed and sampled, not yet decoded."""

    name: str
    info: VideoInfo
    sample: FrameSample
    longest_edge: int
    tile_size: int
    hardware: bool

    @property
    def shown(self) -> tuple[str, Sequence[float], float]:
        """Name, time stamps and length."""
        return self.name, self.sample.timestamps_s, self.sample.duration_s

    @cached_property
    def digest(self) -> bytes:
        """Equal for the same frames of the same stream."""
        return _digest(repr((self.sample, self.longest_edge)).encode(), self.info.digest)

    def tiles(self, check_cancelled: Callable[[], None]) -> Iterator[np.ndarray]:
        """Decode and squeeze: (tile_size, tile_size, 3) uint8 each. Fewer if the file breaks off."""
        frames = read_frames(self.info, self.sample.indices, hardware=self.hardware, check_cancelled=check_cancelled)
        yield from mapped_in_threads(
            lambda frame: squeeze(frame, self.longest_edge, self.tile_size), frames, RESIZING_THREADS
        )

    def shorten(self, num_frames: int) -> None:
        """Keep the first frames only."""
        indices, timestamps_s = self.sample.indices[:num_frames], self.sample.timestamps_s[:num_frames]
        self.sample = replace(self.sample, indices=indices, timestamps_s=timestamps_s)


@dataclass
class FrameSeries(PlannedVideo):
    """A `SampledVideo` in a prompt."""

    video: SampledVideo
    longest_edge: int
    tile_size: int

    @property
    def shown(self) -> tuple[str, Sequence[float], float]:
        """Name, time stamps and length."""
        return self.video.name, self.video.timestamps_s, self.video.duration_s

    @cached_property
    def digest(self) -> bytes:
        """Equal for equal frames."""
        facts = repr((list(self.video.timestamps_s), self.video.duration_s, self.video.are_tiles, self.longest_edge))
        return _digest(facts.encode(), *(np.ascontiguousarray(np.asarray(frame)) for frame in self.video.frames))

    def tiles(self, check_cancelled: Callable[[], None]) -> Iterator[np.ndarray]:
        """Squeeze: (tile_size, tile_size, 3) uint8 each."""
        shape = (self.tile_size, self.tile_size, 3)
        for frame in self.video.frames:
            check_cancelled()
            tile = np.asarray(frame)
            if not self.video.are_tiles:
                tile = squeeze(load_image(frame), self.longest_edge, self.tile_size)
            if tile.shape != shape or tile.dtype != np.uint8:
                raise ValueError(
                    f"{self.video.name} has a tile of {tile.dtype} {tile.shape}, expected uint8 {shape}; "
                    "make tiles with Processor.video_tile"
                )
            yield tile


def open_picture(source: ImageSource, config: ImageConfig, policy: FetchPolicy | None) -> Picture:
    """Load and plan a picture; raises what `load_image` raises."""
    image = load_image(source, policy or DEFAULT_POLICY)
    return Picture(describe_source(source), image, plan(image.size, config), config.tile_size)


def open_clip(
    source: Any, folder: Path, config: VideoConfig, tile_size: int, options: MediaOptions, check: Callable[[], None]
) -> Clip | FrameSeries:
    """Probe and sample a video file, or take frames as they are.

    A video behind a URL, or in a data URL, is written into `folder`.

    Raises:
        ValueError: neither path, URL nor SampledVideo; and what `probe` and `stream` raise.
    """
    if isinstance(source, SampledVideo):
        return FrameSeries(source, config.longest_edge, tile_size)
    if not isinstance(source, str | os.PathLike):
        raise ValueError(f"a video is {type(source).__name__}, expected a path, an http(s) URL or a SampledVideo")
    path = _video_file(source, folder, options.fetch_policy or VIDEO_POLICY, check)
    try:
        info = probe(path, check_cancelled=check)
        sample = choose_frames(info, config.fps, config.max_frames, start_s=options.start_s, end_s=options.end_s)
    except ValueError as error:
        if path.parent != folder:
            raise
        raise ValueError(str(error).replace(str(path), describe_source(source))) from None  # what the user knows
    if info.missing is not None:
        message = f"{describe_source(source)} is incomplete: {info.missing}, which are {info.duration_s:.4g} s of it"
        warnings.warn(message, stacklevel=2)
    return Clip(describe_source(source), info, sample, config.longest_edge, tile_size, options.hardware_decoding)


def _video_file(source: str | os.PathLike[str], folder: Path, policy: FetchPolicy, check: Callable[[], None]) -> Path:
    """Where a video can be read; in `folder`, if it had to be written to a file first."""
    scheme = URL_SCHEME.match(source) if isinstance(source, str) else None
    if scheme is None:
        return Path(source)
    kind, address = scheme[0].lower(), str(source)
    if kind == "file":
        return Path(path_of_file_url(address, address))
    path = folder / f"video{len(list(folder.iterdir()))}"
    if kind in ("http", "https"):
        with path.open("wb") as file:
            for chunk in stream(address, policy):
                check()
                file.write(chunk)
    elif kind == "data":
        path.write_bytes(decode_data_url(address, policy.max_bytes))
    else:
        raise ValueError(
            f"{describe_source(source)}: videos are not read from there; expected a file, http(s):// or data:, "
            "or for a live stream python -m mlx_smolvlm.watch"
        )
    return path


def _digest(*parts: Any) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.digest()
