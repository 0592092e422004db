"""What all files of pages have in common."""

from abc import ABC, abstractmethod

from PIL import Image

from ..options import is_between, quoted

DEFAULT_SCALE = 2.0  # pixels per point: 144 dpi
MAX_RENDER_PIXELS = 80_000_000  # of the larger bitmap of a PDF page, 3 bytes each: A0 at the default scale fits


class PageFile(ABC):
    """The pages of one file. Close it when done, or use it in a `with` statement.

    Attributes:
        name: of the file, for people.
        digest: hexadecimal, of its content.
        num_pages: at least 1.
        needed_password: whether it was opened with one.
    """

    needed_password = False

    def __init__(self, name: str, digest: str, num_pages: int):
        self.name, self.digest, self.num_pages = name, digest, num_pages

    def __enter__(self) -> "PageFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self.num_pages

    @abstractmethod
    def image(self, number: int, scale: float = DEFAULT_SCALE) -> Image.Image:
        """One page.

        Args:
            number: which, counted from 1.
            scale: pixels per point (1/72 inch) of a PDF page; images keep their pixels. A page whose rendering would
                have more than `MAX_RENDER_PIXELS` is rendered at a lower scale, with a warning that names both.

        Returns:
            The page upright, RGB.

        Raises:
            ValueError: no such page, or one that is damaged. The message names both.
        """

    @abstractmethod
    def size_points(self, number: int) -> tuple[float, float] | None:
        """(width, height) of a page as shown, in points of 1/72 inch; None where the file does not say: of images."""

    def close(self) -> None:  # noqa: B027 - there need not be anything to close
        """Release the file."""

    def _check_number(self, number: int) -> None:
        if not 1 <= number <= self.num_pages:
            plural = "" if self.num_pages == 1 else "s"
            raise ValueError(f"{self.name}: there is no page {number}, it has {self.num_pages} page{plural}")


def check_scale(scale: float) -> None:
    """Raise ValueError for what is no scale of pages."""
    if not (is_between(scale, 0, 100) and scale > 0):
        raise ValueError(f"scale is {quoted(scale)}, expected pixels per point, more than 0 and at most 100")


def on_page(reason: str, name: str, number: int | None) -> str:
    """A reason with the place in front of it, each part of it once.

    Args:
        reason: an error's message, which may name the file, or the file and the page.
        name: of the file.
        number: of the page; None if it is about the whole file.
    """
    place = name if number is None else f"{name}, page {number}"
    for known in (place, name):
        reason = reason.removeprefix(f"{known}: ")
    return f"{place}: {reason}"
