"""Small PDFs, written by hand so that nothing but the standard library makes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class MadePage:
    """A page of text: size in points, the clockwise rotation in degrees, and the visible box, if it is not all."""

    lines: Sequence[str] = ()
    width: float = 612
    height: float = 792
    rotation: int = 0
    crop: tuple[float, float, float, float] | None = None

    def content(self) -> bytes:
        """Drawing operators: a frame and a filled square, which tell sides apart, and lines of text."""
        w, h = self.width, self.height
        drawn = f"0.1 0.3 0.9 rg {w / 10:.2f} {h * 0.8:.2f} {w / 10:.2f} {h / 10:.2f} re f 0 g "
        drawn += f"{w / 20:.2f} {h / 20:.2f} {w * 0.9:.2f} {h * 0.9:.2f} re S BT /F 12 Tf 14 TL 72 {h - 144:.2f} Td "
        for line in self.lines:
            escaped = line.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
            drawn += f"({escaped}) Tj T* "
        return f"{drawn}ET".encode("latin-1")

    def dictionary(self, content: int) -> str:
        """The page's object."""
        boxes = f"/MediaBox [0 0 {self.width} {self.height}]"
        if self.crop is not None:
            boxes += f" /CropBox [{' '.join(map(str, self.crop))}]"
        return f"<< /Type /Page /Parent 2 0 R {boxes} /Rotate {self.rotation} /Contents {content} 0 R " + (
            "/Resources << /Font << /F 3 0 R >> >> >>"
        )


def pdf_bytes(pages: Sequence[MadePage], trailer: str = "") -> bytes:
    """A PDF with these pages; `trailer` is added to its trailer, as for the dictionary of an encryption."""
    kids = " ".join(f"{4 + 2 * index} 0 R" for index in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for index, page in enumerate(pages):
        content = page.content()
        objects.append(page.dictionary(5 + 2 * index).encode())
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
    written, places = b"%PDF-1.7\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(written))
        written += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    end += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {trailer} >>\nstartxref\n{len(written)}\n%%EOF\n"
    return written + end.encode()


def write_pdf(path: Path, pages: Sequence[MadePage]) -> Path:
    """Write `pdf_bytes`; returns the path."""
    path.write_bytes(pdf_bytes(pages))
    return path


# 40-bit RC4 of a user password that nobody knows: readers ask for it.
ENCRYPTED = (
    f"/Encrypt << /Filter /Standard /V 1 /R 2 /O <{'28' * 32}> /U <{'17' * 32}> /P -44 >> "
    f"/ID [<{'01' * 16}> <{'01' * 16}>]"
)
