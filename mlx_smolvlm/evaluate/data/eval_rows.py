"""A row of a data set: a question, its options and answer, and its images or video; nothing is opened yet."""

import ast
import base64
import binascii
import io
import json
import os
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from ...media.image_files import EXPECTED, reason
from ...media.signatures import other_content
from ...media.urls import is_url
from ...options import quoted
from .table_cells import TableCell

LETTERS = string.ascii_uppercase
_JPEG_NAMES = (".jpg", ".jpeg")
_ORIENTATION = 0x0112  # of EXIF


@dataclass(frozen=True)
class JsonValue:
    """A string that stays in its JSON-lines file: where its line is, its place there, and whether it is a list."""

    path: Path
    start: int
    stop: int
    place: tuple[str | int, ...]
    is_list: bool = False

    def read(self) -> str:
        """The string."""
        with open(self.path, "rb") as file:
            file.seek(self.start)
            value: Any = json.loads(file.read(self.stop - self.start))
        for step in self.place:
            value = value[step]
        return str(value)


@dataclass(frozen=True)
class ImageRef:
    """An image of a row.

    Attributes:
        name: what it is called: as the row names it, or as VLMEvalKit names the file that it makes of base64.
        source: where it is: a path, text in base64, or where such text stands.
        item: which one of the list that the text is; None if it is no list.
    """

    name: str
    source: Path | str | TableCell | JsonValue
    item: int | None = None

    def load(self) -> Any:
        """What `BatchRequest` takes: a path, an address, the bytes of an image file, or a PIL image.

        Raises:
            ValueError: text that is not base64, or no image.
        """
        if isinstance(self.source, Path):
            return self.source
        text = self.source if isinstance(self.source, str) else self.source.read()
        if is_url(text):
            return text
        if self.item is not None:
            text = list_of(text)[self.item]
        return _as_the_suite_writes(_decoded(text, self.name), self.name)

    def digest(self) -> bytes:
        """Equal for equal images; empty if there is none."""
        try:
            if isinstance(self.source, Path):
                return sha256(self.source.read_bytes()).digest()
            text = self.source if isinstance(self.source, str) else self.source.read()
            return sha256(text.encode(errors="surrogatepass")).digest()
        except (OSError, ValueError):  # the row fails when the image is read
            return b""


@dataclass(frozen=True)
class EvalRow:
    """A row of a data set.

    Attributes:
        index: its name in the set: unique, a whole number or text.
        dataset: which set it is of, by VLMEvalKit's name, without what that says of the sampling.
        question: as the set has it.
        options: letter -> text, as far as they are given; letters may be left out.
        candidates: options of video sets, in order; None if there are none.
        answer: the right answer, or several that count; None if the row has none.
        hint: None if there is none.
        category: None if there is none.
        scorer: the scorer that the row asks for; None for its set's.
        images: in order.
        video: a file; None if there is none.
        frames: how many frames of an unnamed video stand for it, or their images; None if there are none.
        sampling: how frames of `video` are chosen: ("frames", 64) or ("fps", 1.0).
        subtitles: of LongVideoBench; None if there are none.
        fields: everything else that the row has, as text.
        fault: why it cannot be asked; None if it can.
    """

    index: int | str
    dataset: str
    question: str
    options: Mapping[str, str] = field(default_factory=dict)
    candidates: list[str] | None = None
    answer: str | list[str] | None = None
    hint: str | None = None
    category: str | None = None
    scorer: str | None = None
    images: list[ImageRef] = field(default_factory=list)
    video: Path | None = None
    frames: int | list[ImageRef] | None = None
    sampling: tuple[str, float] = ("frames", 64)
    subtitles: list[Mapping[str, Any]] | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    fault: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What no two rows of a run share."""
        return self.dataset, str(self.index)

    @property
    def is_video(self) -> bool:
        """Whether it is about a video."""
        return self.video is not None or self.frames is not None

    def digest(self) -> str:
        """Equal for equal rows: question, options, answer and what images show, but not where they lie."""
        texts = [self.dataset, str(self.index), self.question, self.options, self.candidates, self.answer, self.hint]
        found = sha256(json.dumps(texts, ensure_ascii=True, default=dict).encode())
        images = [*self.images, *(self.frames if isinstance(self.frames, list) else [])]
        for image in images:
            found.update(image.digest())
        if self.video is not None and os.path.isfile(self.video):
            found.update(str(self.video.stat().st_size).encode())
        return found.hexdigest()[:16]


def list_of(text: str) -> list[str]:
    """A list that is written as Python or JSON writes it. Raises ValueError if it is none."""
    for read in (json.loads, ast.literal_eval):
        try:
            values = read(text.strip())
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(values, list | tuple):
            return [str(value) for value in values]
    raise ValueError(f"{quoted(text)} is no list; expected one such as ['one', 'two']")


def is_list(text: str) -> bool:
    """Whether VLMEvalKit takes a text for a list."""
    return text[:1] == "[" and text[-1:] == "]"


def _decoded(text: str, name: str) -> bytes:
    """The bytes of an image in base64."""
    try:
        content = base64.b64decode(text)
    except (binascii.Error, ValueError):
        raise ValueError(f"{name} is not base64 ({quoted(text, 40)})") from None
    if not content:
        raise ValueError(f"{name} is empty; expected an image in base64")
    return content


def _as_the_suite_writes(content: bytes, name: str) -> Any:
    """The image as VLMEvalKit's cache of files has it.

    The suite writes base64 to a file called `name` and reads that again: as JPEG where it is called so, without the
    EXIF data that say which way is up, and without alpha. All others are the bytes themselves.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            is_jpeg = name.lower().endswith(_JPEG_NAMES)
            is_changed = is_jpeg or image.mode in ("RGBA", "P", "LA") or image.getexif().get(_ORIENTATION, 1) != 1
            if not is_changed:
                return content
            plain = Image.new("RGB", image.size)
            plain.paste(image.convert("RGB"))
            if not is_jpeg:
                return plain
            written = io.BytesIO()
            (image.convert("RGB") if image.mode in ("RGBA", "P", "LA") else image).save(written, "JPEG")
            return written.getvalue()
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise ValueError(f"{name}: {other_content(content[:1024], EXPECTED)}") from None
    except Exception as error:  # Pillow's decoders raise whatever damage leads to
        raise ValueError(f"{name} is not an image that can be read: {reason(error)}") from None
