"""One file of pages, a PDF, an image or a TIFF of several, -> its pages as images, one at a time."""

import io
import os
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from ..media.fetch import fetch
from ..media.image_files import MAX_IMAGE_PIXELS
from ..media.images import ImageSource, describe_source, load_image
from ..media.signatures import is_image, is_pdf
from ..media.tiff import count_pages
from ..media.urls import decode_data_url, is_url, path_of_file_url
from ..options import DEFAULT_POLICY, FetchPolicy
from .page_file import DEFAULT_SCALE, PageFile, check_scale, on_page
from .pdf_file import PdfFile

_HEAD_BYTES = 1024  # in which a PDF's signature may stand
_BLOCK_BYTES = 2**20

PageSource = ImageSource  # bytes and open files may hold a PDF, too


def open_pages(
    source: PageSource,
    policy: FetchPolicy = DEFAULT_POLICY,
    *,
    max_pixels: int = MAX_IMAGE_PIXELS,
    password: str | None = None,
    check_cancelled: Callable[[], None] = lambda: None,
) -> PageFile:
    """Open a PDF or an image; its content tells which it is, not its name. No page is rendered yet.

    Args:
        source: a path or an address, the bytes of a file, a file opened in binary mode, or one image in memory, as
            `load_image` takes it.
        policy: limits of downloads.
        max_pixels: width * height above which an image is refused.
        password: opens encrypted PDFs; others do not need it.
        check_cancelled: called between blocks of a file and while a download is waited for; it may raise to stop.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError, FetchError: as `load_image`.
        ValueError: a PDF that is damaged, has no pages, or is encrypted and not opened by the password; a file that is
            neither PDF nor image.
        ImportError: a PDF, and pypdfium2 is not installed.
    """
    name = describe_source(source)
    if isinstance(source, str) and is_url(source) and source[:5].lower() != "file:":
        if source[:5].lower() == "data:":
            source = decode_data_url(source, policy.max_bytes, check_cancelled)
        else:
            source = fetch(source, policy, check_cancelled)
    elif isinstance(source, str) and source[:5].lower() == "file:":
        source = path_of_file_url(source, name)
    if isinstance(source, memoryview | bytearray):
        source = bytes(source)
    elif hasattr(source, "read") and not isinstance(source, Image.Image):
        source = _content(source, name)
    if isinstance(source, bytes):
        with io.BytesIO(source) as content:
            return _opened(source, content, name, max_pixels, password, check_cancelled)
    if not isinstance(source, str | os.PathLike):
        image = load_image(source, policy, max_pixels=max_pixels, check_cancelled=check_cancelled)
        digest = blake2b(repr(image.size).encode() + image.tobytes(), digest_size=16).hexdigest()
        return _ImageFile(image, name, digest, 1, max_pixels, check_cancelled)
    path = Path(os.fsdecode(source)).expanduser()
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise (IsADirectoryError if path.is_dir() else ValueError)(f"{name}: {kind}; pass a PDF or an image")
    try:
        with path.open("rb") as file:
            return _opened(path, file, name, max_pixels, password, check_cancelled)
    except FileNotFoundError:
        raise FileNotFoundError(f"{name}: no such file; check the path of the document") from None
    except PermissionError:
        raise PermissionError(f"{name}: may not be read; check the permissions of the file") from None


def _opened(
    source: Path | bytes,
    file: BinaryIO,
    name: str,
    max_pixels: int,
    password: str | None,
    check_cancelled: Callable[[], None],
) -> PageFile:
    head = file.read(_HEAD_BYTES)
    if not head:
        raise ValueError(f"{name}: empty; expected a PDF or an image")
    digest = blake2b(head, digest_size=16)
    while block := file.read(_BLOCK_BYTES):
        check_cancelled()
        digest.update(block)
    if is_pdf(head) or (name.lower().endswith(".pdf") and not is_image(head)):  # the latter is said to be damaged
        return PdfFile(source, name, digest.hexdigest(), password)
    return _ImageFile(source, name, digest.hexdigest(), count_pages(file), max_pixels, check_cancelled)


def _content(file: Any, name: str) -> bytes:
    """What an open file holds, from its beginning where it can be rewound."""
    if isinstance(file, io.TextIOBase):
        raise TypeError(f"{name}: a file opened in text mode; open it with mode 'rb'")
    try:
        if file.seekable():
            file.seek(0)
        content = file.read()
    except (AttributeError, OSError, ValueError, TypeError) as error:
        raise ValueError(f"{name}: cannot be read ({error}); pass a file opened in binary mode") from error
    return bytes(content)


class _ImageFile(PageFile):
    """An image, or a TIFF file of several."""

    def __init__(
        self,
        source: Any,
        name: str,
        digest: str,
        num_pages: int,
        max_pixels: int,
        check_cancelled: Callable[[], None],
    ):
        super().__init__(name, digest, num_pages)
        self._source, self._max_pixels, self._check_cancelled = source, max_pixels, check_cancelled

    def image(self, number: int, scale: float = DEFAULT_SCALE) -> Image.Image:
        """See `PageFile.image`."""
        check_scale(scale)
        self._check_number(number)
        page = number if self.num_pages > 1 else None
        try:
            return load_image(
                self._source, max_pixels=self._max_pixels, check_cancelled=self._check_cancelled, page=page
            )
        except ValueError as error:
            raise ValueError(_named(error, self.name, page)) from error

    def size_points(self, number: int) -> None:
        """Images do not say."""
        self._check_number(number)


def _named(error: Exception, name: str, page: int | None) -> str:
    """A message that begins with the file's name, as it was given, and with the page where there are several."""
    text = str(error)
    return on_page(text if text.startswith(name) else text.split(": ", 1)[-1], name, page)
