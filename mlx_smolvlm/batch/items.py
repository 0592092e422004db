"""An image or video to ask about."""

from dataclasses import dataclass

from ..media import signatures


@dataclass(frozen=True)
class Item:
    """An image or video to ask about.

    Attributes:
        path: as the input names it, and as the results will.
        source: where it is read from: `path`, or in full where that counts from the folder of a list.
        is_video: whether it is a video.
        prompt: the question about it; None for that of the command.
    """

    path: str
    source: str
    is_video: bool
    prompt: str | None = None


def make_item(name: str, source: str | None = None, is_video: bool | None = None, prompt: str | None = None) -> Item:
    """An item; None for `source` stands for `name`, and for `is_video` has the content decide."""
    source = source or name
    if is_video is None:
        is_video = signatures.is_video(source)
    return Item(name, source, is_video, prompt)


def plural(count: int, what: str) -> str:
    """For people: 1 image, 2 images."""
    return f"{count} {what}{'s' * (count != 1)}"


def is_or_are(count: int) -> str:
    """The verb after `plural`."""
    return "is" if count == 1 else "are"
