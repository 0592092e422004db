"""One file of pages, a PDF, an image or a TIFF of several, -> its pages as images, one at a time.

A PDF page is rendered as docling's pypdfium2 backend does it (docling/backend/pypdfium2_backend.py,
`get_page_image`): at 1.5 times the scale, then resized. A model sees then what it saw in training.
"""

import io
import math
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

from PIL import Image

from ..media.fetch import fetch
from ..media.image_files import MAX_IMAGE_PIXELS
from ..media.images import ImageSource, describe_source, load_image
from ..media.signatures import is_image, is_pdf
from ..media.tiff import count_pages
from ..media.urls import decode_data_url, is_url, path_of_file_url
from ..options import DEFAULT_POLICY, FetchPolicy, is_between, quoted

DEFAULT_SCALE = 2.0  # pixels per point: 144 dpi
OVERSAMPLING = 1.5  # pages are rendered larger and resized, which is sharper
MAX_RENDER_PIXELS = 80_000_000  # of the larger bitmap, 3 bytes each: A0 at the default scale fits
POINTS_PER_INCH = 72
_HEAD_BYTES = 1024  # in which a PDF's signature may stand
_BLOCK_BYTES = 2**20
_PDFIUM = Lock()  # PDFium may be called by one thread at a time, whatever the document

PageSource = ImageSource  # bytes and open files may hold a PDF, too


class PageFile(ABC):
    """The pages of one file. Close it when done, or use it in a `with` statement.

    Attributes:
        name: of the file, for people.
        digest: hexadecimal, of its content.
        num_pages: at least 1.
    """

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
            ValueError: no such page, or one that is damaged. The message begins with the file's name.
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


def open_pages(
    source: PageSource,
    policy: FetchPolicy = DEFAULT_POLICY,
    *,
    max_pixels: int = MAX_IMAGE_PIXELS,
    check_cancelled: Callable[[], None] = lambda: None,
) -> PageFile:
    """Open a PDF or an image; its content tells which it is, not its name. No page is rendered yet.

    Args:
        source: a path or an address, the bytes of a file, a file opened in binary mode, or one image in memory, as
            `load_image` takes it.
        policy: limits of downloads.
        max_pixels: width * height above which an image is refused.
        check_cancelled: called between blocks of a file and while a download is waited for; it may raise to stop.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError, FetchError: as `load_image`.
        ValueError: a PDF that is encrypted, damaged or has no pages; a file that is neither PDF nor image.
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
            return _opened(source, content, name, max_pixels, check_cancelled)
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
            return _opened(path, file, name, max_pixels, check_cancelled)
    except FileNotFoundError:
        raise FileNotFoundError(f"{name}: no such file; check the path of the document") from None
    except PermissionError:
        raise PermissionError(f"{name}: may not be read; check the permissions of the file") from None


def _opened(
    source: Path | bytes, file: BinaryIO, name: str, max_pixels: int, check_cancelled: Callable[[], None]
) -> PageFile:
    head = file.read(_HEAD_BYTES)
    if not head:
        raise ValueError(f"{name}: empty; expected a PDF or an image")
    digest = blake2b(head, digest_size=16)
    while block := file.read(_BLOCK_BYTES):
        check_cancelled()
        digest.update(block)
    if is_pdf(head) or (name.lower().endswith(".pdf") and not is_image(head)):  # the latter is said to be damaged
        return _PdfFile(source, name, digest.hexdigest())
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
            raise ValueError(_named(error, self.name)) from error

    def size_points(self, number: int) -> None:
        """Images do not say."""
        self._check_number(number)


class _PdfFile(PageFile):
    """A PDF, read by PDFium."""

    def __init__(self, source: Path | bytes, name: str, digest: str):
        pdfium = pdfium_library()
        with _PDFIUM:
            try:
                self._document = pdfium.PdfDocument(source)
                num_pages = len(self._document)
            except pdfium.PdfiumError:
                raise ValueError(f"{name}: {_why_not_opened(source)}") from None
        super().__init__(name, digest, num_pages)

    def image(self, number: int, scale: float = DEFAULT_SCALE) -> Image.Image:
        """See `PageFile.image`."""
        check_scale(scale)
        with _PDFIUM, closing(self._page(number)) as page:
            width, height = self._size(page, number)
            wanted = scale
            pixels = math.ceil(width * scale * OVERSAMPLING) * math.ceil(height * scale * OVERSAMPLING)
            if pixels > MAX_RENDER_PIXELS:
                scale *= math.sqrt(MAX_RENDER_PIXELS / pixels) * 0.999  # sides are rounded up
            try:
                with closing(page.render(scale=scale * OVERSAMPLING)) as bitmap:
                    size = (max(1, round(width * scale)), max(1, round(height * scale)))
                    image: Image.Image = bitmap.to_pil().resize(size)
            except pdfium_library().PdfiumError as error:  # of sides that it has no numbers for
                of = f"{width:g} x {height:g} points"
                raise ValueError(f"{self.name}: page {number}, {of}, cannot be rendered ({error})") from None
        if scale != wanted:
            of = f"{wanted * POINTS_PER_INCH:g} dpi, as its {width:g} x {height:g} points would take too much memory"
            warnings.warn(
                f"{self.name}: page {number} is rendered at {scale * POINTS_PER_INCH:.3g} instead of {of}", stacklevel=2
            )
        return image

    def size_points(self, number: int) -> tuple[float, float]:
        """See `PageFile.size_points`."""
        with _PDFIUM, closing(self._page(number)) as page:
            return self._size(page, number)

    def close(self) -> None:
        """Release the document."""
        with _PDFIUM:
            self._document.close()

    def _page(self, number: int) -> Any:
        self._check_number(number)
        try:
            return self._document[number - 1]
        except pdfium_library().PdfiumError as error:
            raise ValueError(f"{self.name}: page {number} cannot be read ({error}); get a whole copy") from None

    def _size(self, page: Any, number: int) -> tuple[float, float]:
        width, height = page.get_size()
        if not (width > 0 and height > 0 and math.isfinite(width) and math.isfinite(height)):
            raise ValueError(f"{self.name}: page {number} has no area ({width:g} x {height:g} points)")
        return width, height


def pdfium_library() -> Any:
    """The module pypdfium2. Raises ModuleNotFoundError, with the command that installs it."""
    try:
        import pypdfium2  # an extra
    except ModuleNotFoundError:
        raise ModuleNotFoundError("PDFs are read by pypdfium2: pip install 'mlx-smolvlm[documents]'") from None
    return pypdfium2


def _why_not_opened(source: Path | bytes) -> str:
    """PDFium is asked again: where a document has merely no pages, the code is that of an earlier error."""
    from pypdfium2 import raw

    if isinstance(source, bytes):
        document = raw.FPDF_LoadMemDocument64(source, len(source), None)
    else:
        document = raw.FPDF_LoadDocument(os.fsencode(source) + b"\0", None)
    if document:
        raw.FPDF_CloseDocument(document)
        return "a PDF without pages"
    if raw.FPDF_GetLastError() == raw.FPDF_ERR_PASSWORD:
        return "an encrypted PDF; save a copy without a password"
    return "not a PDF, or a damaged one; get a whole copy"


def check_scale(scale: float) -> None:
    """Raise ValueError for what is no scale of pages."""
    if not (is_between(scale, 0, 100) and scale > 0):
        raise ValueError(f"scale is {quoted(scale)}, expected pixels per point, more than 0 and at most 100")


def _named(error: Exception, name: str) -> str:
    """A message that begins with the file's name, as it was given."""
    text = str(error)
    return text if text.startswith(name) else f"{name}: {text.split(': ', 1)[-1]}"
