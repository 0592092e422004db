"""The pictures and videos of a prompt: found, opened and measured, before a pixel is resized.

What each costs in tokens is known from its size or its packets alone, so a prompt that is too long is
refused before any work.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from .expansion import expand_image, expand_video
from .fetch import FetchPolicy, fetch_to_file
from .image_loading import path_of_file_url
from .image_processing import Layout
from .processor_config import VideoConfig
from .video import FrameSample, VideoInfo, choose_frames, probe

VIDEO_POLICY = FetchPolicy(max_bytes=2 * 1024**3, timeout_s=600)


@dataclass(frozen=True)
class Medium:
    """One picture or video of a prompt and what it costs: `image_tokens` = `num_tiles` x image_seq_len."""

    kind: str  # "image" or "video"
    name: str
    num_tiles: int
    image_tokens: int
    layout: str  # for people: "3 x 4 tiles and the global image", "13 frames"


@dataclass
class Picture:
    """A picture that is loaded and planned, not yet resized and cut."""

    name: str
    image: Image.Image
    layout: Layout

    def expansion(self, image_seq_len: int) -> str:
        """What stands in the prompt for it."""
        return expand_image(self.layout.rows, self.layout.columns, image_seq_len)

    def cost(self, image_seq_len: int) -> Medium:
        """What it will cost, with `image_seq_len` tokens per tile."""
        grid = f"{self.layout.rows} x {self.layout.columns} tiles and the global image"
        shape = grid if self.layout.rows else "one tile"
        return Medium("image", self.name, self.layout.num_tiles, self.layout.num_tiles * image_seq_len, shape)


@dataclass
class Clip:
    """A video that is probed and sampled, not yet decoded."""

    name: str
    info: VideoInfo
    sample: FrameSample
    longest_edge: int

    def expansion(self, image_seq_len: int) -> str:
        """What stands in the prompt for it."""
        return expand_video(self.sample.timestamps_s, self.sample.duration_s, image_seq_len)

    def cost(self, image_seq_len: int) -> Medium:
        """What it will cost, with `image_seq_len` tokens per tile."""
        frames = len(self.sample.indices)
        return Medium("video", self.name, frames, frames * image_seq_len, f"{frames} frame{'s' * (frames > 1)}")


def read_clip(name: str, path: Path, config: VideoConfig) -> Clip:
    """Probe and sample a video file; raises what `probe` raises."""
    info = probe(path)
    return Clip(name, info, choose_frames(info, config), config.longest_edge)


@contextmanager
def local_files(sources: Sequence[Any]) -> Iterator[list[Path]]:
    """Paths of the videos; those behind a URL are downloaded to files that vanish afterwards."""
    with tempfile.TemporaryDirectory(prefix="mlx_smolvlm_") as folder:
        paths = []
        for number, source in enumerate(sources):
            if isinstance(source, str) and source.startswith(("http://", "https://")):
                path = Path(folder) / f"video{number}"
                with path.open("wb") as file:
                    fetch_to_file(source, file, VIDEO_POLICY)
                paths.append(path)
            elif isinstance(source, str | Path):
                is_url = str(source).startswith("file://")
                paths.append(Path(path_of_file_url(str(source), str(source)) if is_url else source))
            else:
                raise ValueError(f"a video is {type(source).__name__}, expected a path or an http(s) URL")
        yield paths
