"""The images and videos that go with the next question of a chat."""

import shlex
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..media.urls import is_url
from ..options import MediaOptions
from .standard_input import STANDARD_INPUT, read_pipes


class ShownMedium(NamedTuple):
    """An image or video: its kind, what it is read from, and what the user calls it."""

    kind: str
    source: Any
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class ShownMedia:
    """A list that users add to, look at and remove from."""

    def __init__(self) -> None:
        self._media: list[ShownMedium] = []

    def __bool__(self) -> bool:
        return bool(self._media)

    def __str__(self) -> str:
        """On one line."""
        return ", ".join(map(str, self._media))

    @property
    def lines(self) -> str:
        """Numbered, one per line."""
        return "\n".join(f"{number}  {medium}" for number, medium in enumerate(self._media, 1))

    def add(self, kind: str, source: Any, name: str) -> None:
        """Show an image or video with the next question."""
        self._media.append(ShownMedium(kind, source, name))

    def sources(self, kind: str) -> list[Any]:
        """Those of one kind, "image" or "video"."""
        return [medium.source for medium in self._media if medium.kind == kind]

    def take_back(self, content: Iterable[dict[str, Any]]) -> str:
        """Show the media of a question that was taken back; returns their names on one line, "" if it had none."""
        taken = [
            ShownMedium(item["type"], item[item["type"]], item[item["type"]].name)
            for item in content
            if item["type"] != "text"
        ]
        self._media = [*taken, *self._media]
        return ", ".join(map(str, taken))

    def remove(self, which: str) -> str:
        """Remove one by its number, or "all"; returns what was removed.

        Raises:
            ValueError: no such number.
        """
        if which == "all":
            removed = str(self)
            self.clear()
            return removed
        if not which.isdecimal() or not 1 <= int(which) <= len(self._media):
            there_are = f"there are {len(self._media)}" if self._media else "there is none"
            raise ValueError(f"/media remove takes the number of an image or video, or all; {there_are}")
        return str(self._media.pop(int(which) - 1))

    def obey(self, text: str) -> str:
        """Do what stands after `/media`; returns what to tell the user.

        Raises:
            ValueError: neither nothing, which lists, nor `remove` with a number or "all".
        """
        command, _, which = text.partition(" ")
        if command == "remove":
            return f"(removed: {self.remove(which.strip())})"
        if text:
            raise ValueError("/media lists, /media remove N removes one, /media remove all removes all")
        return self.lines or "(no image or video goes with the next question)"

    def clear(self) -> None:
        """Show none."""
        self._media = []


def typed_path(text: str) -> str:
    """A file's name as typed, or as terminals paste it: in quotes, or with backslashes before spaces."""
    if not text:
        raise ValueError("name a file after the command, as in /image photo.jpg")
    if is_url(text) or Path(text).exists():
        return text
    with suppress(ValueError):
        words = shlex.split(text)
        if len(words) == 1 and "\\" not in words[0]:
            return words[0]
    return text


def open_medium(
    kind: str, source: str, options: MediaOptions, before_showing: Callable[[], None] | Literal[False]
) -> Any:
    """What is kept of an image or video until it is asked about: its source if it is a file or a video's address.

    Args:
        kind: "image" or "video".
        source: path or address.
        options: how large an image may be, and which page of it is read.
        before_showing: called before an image is drawn on the terminal; False draws none.

    Raises:
        ValueError, OSError: it cannot be opened.
    """
    if kind == "video":
        if not is_url(source):  # those are downloaded with the question
            from ..media.video.probing import probe

            probe(Path(source))
        return source
    from ..media.image_files import MAX_IMAGE_PIXELS
    from ..media.images import load_image
    from ..media.reporting import named_source
    from .inline_images import show_inline

    if source in STANDARD_INPUT:
        raise ValueError("the chat reads standard input itself; save the image to a file first")
    (content,) = read_pipes([source])
    with named_source(source[:100]):
        image = load_image(content, max_pixels=options.max_pixels or MAX_IMAGE_PIXELS, page=options.page)
    if before_showing:
        before_showing()
        show_inline(image)
    # Only a file can be opened again; what came from elsewhere is kept.
    return image if is_url(source) or content is not source else source
