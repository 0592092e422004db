"""The images and videos of a prompt: opened and measured before a pixel is resized.

The size of an image, or the packets of a video, give its cost in tokens, so a prompt that is too long is refused before
any work.
"""

import hashlib
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..media.image_files import MAX_IMAGE_PIXELS
from ..media.images import ImageSource, describe_source, load_image
from ..media.prefetch import mapped_in_threads
from ..media.reporting import named_source
from ..media.urls import URL_SCHEME, decode_data_url, path_of_file_url
from ..options import DEFAULT_POLICY, FetchPolicy, MediaOptions
from .expansion import expand_image, expand_video
from .processor_config import ImageConfig, VideoConfig
from .sampled_video import SampledVideo
from .tiling import Layout, cut_grid, on_grid, plan, squeeze

if TYPE_CHECKING:  # what reads videos is imported when there is one: it takes a tenth of the time to start
    from ..media.video.probing import FrameSample, VideoInfo

RESIZING_THREADS = min(4, os.cpu_count() or 1)  # frames in flight, each at its full size in memory
VIDEO_POLICY = FetchPolicy(max_bytes=2 * 1024**3, timeout_s=600)


@dataclass(frozen=True)
class Medium:
    """One image or video of a prompt and what it costs: `image_tokens` = `num_tiles` x image_seq_len."""

    kind: str  # "image" or "video"
    name: str
    num_tiles: int
    image_tokens: int
    layout: str  # for people: "3 x 4 tiles and the global image", "13 frames"


class PlannedImage:
    """An image whose layout is known."""

    name: str
    layout: Layout

    @property
    def num_tiles(self) -> int:
        """Tiles that it will be cut into, the global image included."""
        return self.layout.num_tiles

    def expansion(self, image_seq_len: int) -> str:
        """Its text in the prompt."""
        return expand_image(self.layout.rows, self.layout.columns, image_seq_len)

    def cost(self, image_seq_len: int) -> Medium:
        """Its cost in tokens, with `image_seq_len` tokens per tile."""
        grid = f"{self.layout.rows} x {self.layout.columns} tiles and the global image"
        shape = grid if self.layout.rows else "one tile"
        return Medium("image", self.name, self.num_tiles, self.num_tiles * image_seq_len, shape)


@dataclass
class LoadedImage(PlannedImage):
    """An image that is loaded and planned, not yet resized and cut; or cut, and then no longer held."""

    name: str
    image: Image.Image | None
    layout: Layout
    tile_size: int
    check_cancelled: Callable[[], None]
    is_cut: bool = False

    def cut(self) -> None:
        """Make the tiles now, and release the image, which usually is many times larger."""
        if self.is_cut:
            return
        _ = self.digest, self._cut
        self.is_cut = True
        self.image = None
        del self._on_grid

    @cached_property
    def _on_grid(self) -> Image.Image:
        assert self.image is not None
        return on_grid(self.image, self.layout, self.check_cancelled)

    @cached_property
    def _cut(self) -> np.ndarray:
        return cut_grid(self._on_grid, self.layout, self.tile_size)

    @cached_property
    def digest(self) -> bytes:
        """Equal for equal tiles."""
        return _digest(repr(self.layout).encode(), self._on_grid.tobytes())

    def tiles(self, check_cancelled: Callable[[], None]) -> Iterator[np.ndarray]:
        """Resize and cut: (tile_size, tile_size, 3) uint8 each."""
        check_cancelled()
        if self.is_cut:
            yield from self._cut
            return
        yield from cut_grid(self._on_grid, self.layout, self.tile_size)
        _ = self.digest  # needed once all is read: made here, by the thread that works ahead
        del self._on_grid


class PlannedVideo(ABC):
    """A video whose frame times are known. Frames are shown one by one, with time stamps."""

    @property
    @abstractmethod
    def shown(self) -> tuple[str, Sequence[float], float]:
        """Name, time stamps of the frames in seconds, length of the whole video in seconds."""

    @property
    def num_tiles(self) -> int:
        """Frames to show."""
        return len(self.shown[1])

    def expansion(self, image_seq_len: int) -> str:
        """Its text in the prompt."""
        _, timestamps_s, duration_s = self.shown
        return expand_video(timestamps_s, duration_s, image_seq_len)

    def cost(self, image_seq_len: int) -> Medium:
        """Its cost in tokens, with `image_seq_len` tokens per tile."""
        frames = self.num_tiles
        return Medium("video", self.shown[0], frames, frames * image_seq_len, f"{frames} frame{'s' * (frames > 1)}")


@dataclass
class Clip(PlannedVideo):
    """A video file that is probed and sampled, not yet decoded."""

    name: str
    info: "VideoInfo"
    sample: "FrameSample"
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
        from ..media.video.frames import read_frames

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
                tile = squeeze(load_image(frame, check_cancelled=check_cancelled), self.longest_edge, self.tile_size)
            if tile.shape != shape or tile.dtype != np.uint8:
                raise ValueError(
                    f"{self.video.name} has a tile of {tile.dtype} {tile.shape}, expected uint8 {shape}; "
                    "make tiles with Processor.video_tile"
                )
            yield tile


def open_image(
    source: ImageSource, config: ImageConfig, options: MediaOptions, check: Callable[[], None]
) -> LoadedImage:
    """Load and plan an image; raises what `load_image` raises."""
    max_pixels = MAX_IMAGE_PIXELS if options.max_pixels is None else options.max_pixels
    with named_source(describe_source(source)):
        policy = options.fetch_policy or DEFAULT_POLICY
        image = load_image(source, policy, max_pixels=max_pixels, check_cancelled=check, page=options.page)
    return LoadedImage(describe_source(source), image, plan(image.size, config), config.tile_size, check)


def download_folder() -> AbstractContextManager[str]:
    """A new folder for the files of videos, removed at the end."""
    from tempfile import TemporaryDirectory

    return TemporaryDirectory(prefix="mlx_smolvlm_")


def open_clip(
    source: Any, folder: Path, config: VideoConfig, tile_size: int, options: MediaOptions, check: Callable[[], None]
) -> Clip | FrameSeries:
    """Probe and sample a video file, or take frames as they are.

    A video behind a URL, or in a data URL, is written into `folder`.

    Raises:
        ValueError: neither path, URL nor SampledVideo; and what `probe` and `stream` raise.
    """
    from ..media.video.probing import choose_frames, probe

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
    """The path of a video; in `folder`, if it had to be written to a file first."""
    scheme = URL_SCHEME.match(source) if isinstance(source, str) else None
    if scheme is None:
        return Path(os.fsdecode(source))
    kind, address = scheme[0].lower(), str(source)
    if kind == "file":
        return Path(path_of_file_url(address, address))
    path = folder / f"video{len(list(folder.iterdir()))}"
    if kind in ("http", "https"):
        from ..media.fetch import stream

        with path.open("wb") as file:
            for chunk in stream(address, policy, check):
                check()
                file.write(chunk)
    elif kind == "data":
        path.write_bytes(decode_data_url(address, policy.max_bytes, check))
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
