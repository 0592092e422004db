"""A PDF -> its pages as images.

A page is rendered as docling's pypdfium2 backend does it (docling/backend/pypdfium2_backend.py, `get_page_image`): at
1.5 times the scale, then resized. A model sees then what it saw in training.
"""

import math
import os
import warnings
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import Any

from PIL import Image

from .page_file import DEFAULT_SCALE, MAX_RENDER_PIXELS, PageFile, check_scale, on_page

OVERSAMPLING = 1.5  # pages are rendered larger and resized, which is sharper
POINTS_PER_INCH = 72
_ENCRYPTED = "an encrypted PDF; give its password (--password-file, in Python password=) or save a copy without one"
_PDFIUM = Lock()  # PDFium may be called by one thread at a time, whatever the document


class PdfFile(PageFile):
    """A PDF, read by PDFium."""

    def __init__(self, source: Path | bytes, name: str, digest: str, password: str | None):
        """`open_pages` describes the arguments and errors."""
        pdfium = pdfium_library()
        with _PDFIUM:
            try:
                self._document = pdfium.PdfDocument(source)
                num_pages = len(self._document)
            except pdfium.PdfiumError:
                reason = _why_not_opened(source)
                if reason != _ENCRYPTED or password is None:
                    raise ValueError(f"{name}: {reason}") from None
                try:
                    self._document = pdfium.PdfDocument(source, password=password)
                    num_pages = len(self._document)
                except pdfium.PdfiumError:
                    raise ValueError(f"{name}: an encrypted PDF, and the password does not open it") from None
                self.needed_password = True
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
                reason = f"{width:g} x {height:g} points cannot be rendered ({error})"
                raise ValueError(on_page(reason, self.name, number)) from None
        if scale != wanted:
            of = f"{wanted * POINTS_PER_INCH:g} dpi, as its {width:g} x {height:g} points would take too much memory"
            warnings.warn(
                f"{self.name}, page {number}: rendered at {scale * POINTS_PER_INCH:.3g} instead of {of}", stacklevel=2
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
            raise ValueError(on_page(f"cannot be read ({error}); get a whole copy", self.name, number)) from None

    def _size(self, page: Any, number: int) -> tuple[float, float]:
        width, height = page.get_size()
        if not (width > 0 and height > 0 and math.isfinite(width) and math.isfinite(height)):
            raise ValueError(on_page(f"it has no area ({width:g} x {height:g} points)", self.name, number))
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
        return _ENCRYPTED
    return "not a PDF, or a damaged one; get a whole copy"
