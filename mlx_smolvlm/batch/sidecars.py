"""A file beside each image with its answer: text, JSON or XMP. What others wrote there stays."""

import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from xml.sax.saxutils import escape

from ..media.urls import is_url, path_of_file_url
from .items import Item
from .record import Result

FORMS = ("txt", "json", "xmp")
_MARK = re.compile(rb"(?<=written by mlx-smolvlm )[0-9a-f]{16}")  # a digest of the rest: an edited file is not ours
_BLANK = b"0" * 16
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="written by mlx-smolvlm {mark}">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/">
   <dc:description>
    <rdf:Alt>
     <rdf:li xml:lang="x-default">{text}</rdf:li>
    </rdf:Alt>
   </dc:description>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""


class Sidecars:
    """Writes them. A file that is there is replaced only if it is empty, or JSON or XMP that this class has written and
    nobody has edited since; a text file bears no mark, so one with another text stays.

    Attributes:
        problems: why sidecars were not written, one line each.
    """

    def __init__(self, form: str, items: Iterable[Item]):
        """
        Args:
            form: one of FORMS.
            items: what will be asked about.

        Raises:
            ValueError: an item with an address, which has no place beside it, or two with one sidecar.
        """
        self._form = form
        self.problems: dict[Path, str] = {}
        owners: dict[Path, Item] = {}
        for item in items:
            owner = owners.setdefault(self._place(item.source), item)
            if owner is not item:
                what = "asked about twice" if owner.source == item.source else f"named like {owner.path}"
                raise ValueError(
                    f"--sidecar {form}: {item.path} is {what}, and both answers would go to "
                    f"{self._place(item.source).name}; do them one after the other in separate folders or runs"
                )

    def write(self, result: Result) -> None:
        """Write that of a result, unless it is an error or the sidecar is there already."""
        if result.text is None:
            return
        place, content = self._place(result.source or result.path), self._content(result)
        try:
            if not self._is_free(place, content):
                return
            create = os.O_TRUNC if place.exists() else os.O_CREAT | os.O_EXCL
            descriptor = os.open(place, os.O_WRONLY | create, 0o666)
            try:
                written = os.write(descriptor, content)
                if written < len(content):
                    os.write(descriptor, content[written:])
            except OSError:
                with suppress(OSError):
                    os.ftruncate(descriptor, 0)  # empty ones are written by the next run
                raise
            finally:
                os.close(descriptor)
            self.problems.pop(place, None)
        except OSError as error:
            self.problems[place] = error.strerror or str(error)

    def _is_free(self, place: Path, content: bytes) -> bool:
        """Whether a sidecar is to be written; notes a problem if something else is there."""
        if place.exists() and not place.is_file():
            self.problems[place] = "it is no file"
            return False
        try:
            there = place.read_bytes()
        except FileNotFoundError:
            return True
        if there and there != content and not _is_own(there):
            self.problems[place] = "it has other content"
        return not there or (there != content and _is_own(there))

    def _place(self, source: str) -> Path:
        if is_url(source):
            if not source.lower().startswith("file:"):
                raise ValueError(f"--sidecar {self._form}: {source[:200]} is an address, and nothing can lie beside it")
            source = path_of_file_url(source, source)
        return Path(source).expanduser().with_suffix(f".{self._form}")

    def _content(self, result: Result) -> bytes:
        text = result.text or ""
        if self._form == "txt":
            return f"{text}\n".encode("utf-8", "replace")
        blank = f"written by mlx-smolvlm {_BLANK.decode()}"
        if self._form == "json":
            record = asdict(result) | {"path": Path(result.path).name}
            del record["seconds"], record["source"]  # of one run, and of one machine
            content = f"{json.dumps({'sidecar': blank, **record}, indent=2, ensure_ascii=False)}\n".encode(
                errors="replace"
            )
        else:
            shown = escape(_NOT_XML.sub("\ufffd", text))
            content = _XMP.format(mark=_BLANK.decode(), text=shown).encode()
        return _MARK.sub(_digest(content), content, count=1)


def _is_own(content: bytes) -> bool:
    mark = _MARK.search(content)
    return mark is not None and mark[0] == _digest(_MARK.sub(_BLANK, content, count=1))


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=8).hexdigest().encode()
