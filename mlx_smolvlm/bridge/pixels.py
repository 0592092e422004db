"""Pixels and files as programs hand them over -> what the processor takes. No MLX."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..options import quoted
from ..processor.sampled_video import SampledVideo

CHANNELS = {"rgb": (0, 1, 2), "rgba": (0, 1, 2, 3), "bgra": (2, 1, 0, 3)}  # where red, green, blue and alpha are


@dataclass(frozen=True)
class PixelLayout:
    """How the bytes of an uncompressed image are arranged.

    Attributes:
        width, height: in pixels.
        bytes_per_row: from one row's beginning to the next one's; rows may be padded.
        format: "rgb", "rgba" or "bgra", a byte each. Alpha is not premultiplied; images stand on white, as everywhere.

    Raises:
        ValueError: another format, no pixels, or rows that are too short.
    """

    width: int
    height: int
    bytes_per_row: int
    format: str

    def __post_init__(self) -> None:
        if self.format not in CHANNELS:
            raise ValueError(f"format is {quoted(self.format)}, expected {', '.join(CHANNELS)}")
        for name in ("width", "height"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1 pixel")
        if self.bytes_per_row < self.row_bytes:
            raise ValueError(
                f"bytes_per_row is {self.bytes_per_row}, expected at least {self.row_bytes}: {self.width} pixels of "
                f"{len(CHANNELS[self.format])} bytes"
            )

    @property
    def row_bytes(self) -> int:
        """Bytes of the pixels of a row, without what it is padded with."""
        return self.width * len(CHANNELS[self.format])

    def array(self, data: bytes) -> np.ndarray:
        """The pixels, (height, width, 3) uint8 RGB, or (height, width, 4) if any is transparent.

        Raises:
            ValueError: too few or too many bytes.
        """
        least = self.bytes_per_row * (self.height - 1) + self.row_bytes  # the last row need not be padded
        if not least <= len(data) <= self.bytes_per_row * self.height:
            raise ValueError(
                f"the image has {len(data)} bytes, expected {self.bytes_per_row * self.height}: {self.height} rows "
                f"of {self.bytes_per_row}"
            )
        flat = np.frombuffer(data, np.uint8)
        rows = np.lib.stride_tricks.as_strided(flat, (self.height, self.row_bytes), (self.bytes_per_row, 1))
        pixels = rows.reshape(self.height, self.width, -1)
        channels = CHANNELS[self.format]
        if len(channels) == 4 and pixels[..., 3].min() == 255:
            channels = channels[:3]
        return np.stack([pixels[..., channel] for channel in channels], axis=-1)


@dataclass(frozen=True)
class ImageInput:
    """An image: a file, or an attachment that is an encoded one (PNG, JPEG, ...) or pixels.

    Attributes:
        path: a file.
        attachment: number of an attachment, from 0.
        width, height, bytes_per_row, format: of pixels, as in `PixelLayout`; None where the attachment is encoded.

    Raises:
        ValueError: both a path and an attachment or none of them, or not all that describes pixels.
    """

    path: str | None = None
    attachment: int | None = None
    width: int | None = None
    height: int | None = None
    bytes_per_row: int | None = None
    format: str | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.attachment is None):
            raise ValueError("an image has a path or an attachment, one of the two")
        layout = (self.width, self.height, self.bytes_per_row, self.format)
        if any(value is not None for value in layout) and (self.path is not None or None in layout):
            raise ValueError("pixels are an attachment with all of width, height, bytes_per_row and format")
        _ = self._layout

    @property
    def _layout(self) -> PixelLayout | None:
        if self.width is None or self.height is None or self.bytes_per_row is None or self.format is None:
            return None
        return PixelLayout(self.width, self.height, self.bytes_per_row, self.format)

    def source(self, attachments: Sequence[bytes]) -> Path | bytes | np.ndarray:
        """What `stream_generate` takes. Raises ValueError: no such attachment, or not as many bytes as are said."""
        if self.path is not None:
            return Path(self.path)
        data = _attachment(attachments, self.attachment)
        layout = self._layout
        return data if layout is None else layout.array(data)


@dataclass(frozen=True)
class VideoInput:
    """A video: a file, or frames with their times.

    Attributes:
        path: a file.
        frames: images, as above.
        times_s: when each is shown, in seconds from the beginning.
        duration_s: length of the video, in seconds.

    Raises:
        ValueError: both a path and frames or none of them, or frames without times and duration.
    """

    path: str | None = None
    frames: tuple[ImageInput, ...] | None = None
    times_s: tuple[float, ...] | None = None
    duration_s: float | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.frames is None):
            raise ValueError("a video has a path or frames, one of the two")
        described = [self.times_s is not None, self.duration_s is not None]
        if any(described) if self.path is not None else not all(described):
            raise ValueError("frames have times_s and duration_s, files have none of them")

    def source(self, attachments: Sequence[bytes]) -> Path | SampledVideo:
        """What `stream_generate` takes. Raises ValueError: what `ImageInput` or `SampledVideo` refuses."""
        if self.frames is None:
            return Path(self.path or "")
        from ..media.images import load_image

        frames = [load_image(frame.source(attachments)) for frame in self.frames]
        return SampledVideo(frames, self.times_s or (), self.duration_s or 0.0, name="the video")


def _attachment(attachments: Sequence[bytes], number: int | None) -> bytes:
    if number is None or not 0 <= number < len(attachments):
        raise ValueError(f"attachment is {number}, but the request has {len(attachments)}, counted from 0")
    return attachments[number]
