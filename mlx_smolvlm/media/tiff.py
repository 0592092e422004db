"""Which image of a TIFF file is read: one of its pages, or the full-size image in a raw photo (DNG, NEF, CR2, ARW).

Pillow reads the first image, which in raw photos and some scans is a thumbnail.
"""

import io
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

MAX_DIRECTORIES = 10_000  # a document of more pages, or a hostile chain
_SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
MAX_PREVIEW_BYTES = 256 * 1024**2
FULL_SIZE = 0.9  # of the sensor's sides, which include masked borders
_SUBFILE_TYPE, _WIDTH, _HEIGHT, _PHOTOMETRIC, _ORIENTATION = 254, 256, 257, 262, 274
_STRIPS, _STRIP_BYTES, _SUB_DIRECTORIES, _JPEG, _JPEG_BYTES = 273, 279, 330, 513, 514
_EXIF, _DNG_VERSION, _EXIF_WIDTH, _EXIF_HEIGHT = 34665, 50706, 40962, 40963
_WANTED = frozenset({_SUBFILE_TYPE, _WIDTH, _HEIGHT, _PHOTOMETRIC, _ORIENTATION, _STRIPS, _STRIP_BYTES, _JPEG}) | {
    *(_SUB_DIRECTORIES, _JPEG_BYTES, _EXIF, _DNG_VERSION, _EXIF_WIDTH, _EXIF_HEIGHT)
}
_REDUCED_OR_MASK = 0b101  # bits of the subfile type
_SENSOR = (32803, 34892)  # photometric interpretation: colour filter array, linear raw
_FORMATS = {1: "B", 3: "H", 4: "L", 13: "L", 16: "Q", 18: "Q"}  # types of numbers -> `struct`'s letters
_MAX_VALUES = 64


@dataclass(frozen=True)
class Selection:
    """What to read.

    Attributes:
        frame: its place among the images that Pillow counts, from 0.
        jpeg: it is this JPEG file instead.
        orientation: that of the photo, where the JPEG file states none.
        note: what to tell the user, without the file's name; None if it goes without saying.
    """

    frame: int = 0
    jpeg: bytes | None = None
    orientation: int | None = None
    note: str | None = None


def select(file: BinaryIO, page: int | None) -> Selection:
    """Choose from a TIFF file.

    Args:
        file: the whole file.
        page: counted from 1; thumbnails, reduced copies and masks do not count. None takes the first.

    Raises:
        ValueError: no such page, or a raw photo without a full-size image in it. Without the file's name.
    """
    head = _head(file)
    if len(head) < 16:
        return Selection()
    reader, chain = _chain(file, head)
    subs = [sub for directory in chain[:16] for sub in reader.subs(directory)]
    found = [*chain, *subs]
    sensors = [directory for directory in found if directory.get(_PHOTOMETRIC, (0,))[0] in _SENSOR]
    if sensors or head[8:10] == b"CR" or any(_DNG_VERSION in directory for directory in chain[:1]):
        if page not in (None, 1):
            raise ValueError(f"page is {page}, but a raw photo has one; leave it out")
        return _preview(file, reader, chain, found, sensors)
    pages = _pages(chain)
    if not pages:  # the largest of them, if there is none within them that is larger
        largest = max(map(_size, chain), default=(0, 0))
        larger = max(map(_size, subs), default=(0, 0))
        if larger > largest:
            copy = f"only a reduced copy of {_by(largest)} can be read of an image of {_by(larger)}"
            raise ValueError(f"{copy}; save it as PNG or JPEG")
        pages = [next((place for place, directory in enumerate(chain) if _size(directory) == largest), 0)]
    if page is not None and page > len(pages):
        raise ValueError(f"page is {page}, but it has {len(pages)} page{'s' * (len(pages) > 1)}")
    note = None
    if page is None and len(pages) > 1:
        note = f"page 1 of {len(pages)} is read; choose another with --page (in Python page=)"
    return Selection(pages[(page or 1) - 1], note=note)


def count_pages(file: BinaryIO) -> int:
    """Pages that `select` can choose from: of what is no TIFF file, and of a raw photo, one."""
    head = _head(file)
    if len(head) < 16 or head[:4] not in _SIGNATURES:
        return 1
    _, chain = _chain(file, head)
    is_raw = head[8:10] == b"CR" or any(_DNG_VERSION in directory for directory in chain[:1])
    return 1 if is_raw else max(1, len(_pages(chain)))


_Directory = dict[int, tuple[int, ...]]


def _head(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read(16)


def _chain(file: BinaryIO, head: bytes) -> "tuple[_Reader, list[_Directory]]":
    """The directories of a TIFF file that begins with `head`, and what reads more."""
    order = {b"II": "<", b"MM": ">"}.get(head[:2], "<")
    is_big = head[2:4] in (b"\x2b\x00", b"\x00\x2b")
    (first,) = struct.unpack(f"{order}Q", head[8:16]) if is_big else struct.unpack(f"{order}L", head[4:8])
    reader = _Reader(file, order, is_big)
    return reader, list(reader.chain(first))


def _pages(chain: list[_Directory]) -> list[int]:
    """The places of what is no thumbnail, reduced copy or mask."""
    return [place for place, directory in enumerate(chain) if not _subfile_type(directory) & _REDUCED_OR_MASK]


class _Reader:
    """Reads the directories of a TIFF file: the few tags that are needed, and no more than a few values each."""

    def __init__(self, file: BinaryIO, order: str, is_big: bool):
        self._file, self._order, self._is_big = file, order, is_big
        self._seen: set[int] = set()

    def chain(self, offset: int) -> Iterator[_Directory]:
        """A directory and those after it."""
        while offset and offset not in self._seen and len(self._seen) < MAX_DIRECTORIES:
            self._seen.add(offset)
            directory, offset = self.read(offset)
            yield directory

    def subs(self, directory: _Directory) -> Iterator[_Directory]:
        """The directories within one."""
        for offset in directory.get(_SUB_DIRECTORIES, ()):
            yield from self.chain(offset)

    def read(self, offset: int) -> tuple[_Directory, int]:
        """The wanted tags of a directory, and where the next one is; 0 at the end, or where the file is cut."""
        count_format, entry_size, next_format = ("Q", 20, "Q") if self._is_big else ("H", 12, "L")
        count = self._numbers(offset, count_format, 1)
        start = offset + struct.calcsize(f"={count_format}")
        if not count or count[0] > 4096:
            return {}, 0
        directory: _Directory = {}
        for place in range(start, start + count[0] * entry_size, entry_size):
            values = self._entry(place)
            directory |= values
        following = self._numbers(start + count[0] * entry_size, next_format, 1)
        return directory, following[0] if following else 0

    def _entry(self, place: int) -> _Directory:
        head = self._numbers(place, "H", 2)
        if len(head) < 2 or head[0] not in _WANTED or head[1] not in _FORMATS:
            return {}
        wide, room = ("Q", 8) if self._is_big else ("L", 4)
        count = self._numbers(place + 4, wide, 1)
        if not count:
            return {}
        letter, num_values = _FORMATS[head[1]], min(count[0], _MAX_VALUES)
        here = place + 4 + room
        if struct.calcsize(f"={letter}") * count[0] > room:
            here = (self._numbers(here, wide, 1) or (0,))[0]
        values = self._numbers(here, letter, num_values)
        # An image in many strips is no JPEG file; the first of them would pass for one.
        return {} if not values or (head[0] == _STRIPS and count[0] > 1) else {head[0]: values}

    def _numbers(self, offset: int, letter: str, count: int) -> tuple[int, ...]:
        """Numbers at a place in the file; none where it is cut."""
        layout = struct.Struct(f"{self._order}{count}{letter}")
        if offset >= 2**63:
            return ()
        self._file.seek(offset)
        data = self._file.read(layout.size)
        return layout.unpack(data) if len(data) == layout.size else ()


def _preview(
    file: BinaryIO, reader: _Reader, chain: list[_Directory], found: list[_Directory], sensors: list[_Directory]
) -> Selection:
    """The image in a raw photo, if it is as large as the photo."""
    full = max(map(_size, sensors), default=(0, 0))
    for offset in chain[0].get(_EXIF, ())[:1]:
        exif, _ = reader.read(offset)
        stated = (exif.get(_EXIF_WIDTH, (0,))[0], exif.get(_EXIF_HEIGHT, (0,))[0])
        full = full if full > (0, 0) else stated
    previews = [(size, jpeg) for directory in found if (jpeg := _jpeg(file, directory)) and (size := _jpeg_size(jpeg))]
    largest, jpeg = max(previews, default=((0, 0), None), key=lambda preview: preview[0][0] * preview[0][1])
    wanted = [FULL_SIZE * side for side in sorted(full)]
    if jpeg is None or full == (0, 0) or any(side < least for side, least in zip(sorted(largest), wanted, strict=True)):
        photo = f"a raw photo of {_by(full)}" if full > (0, 0) else "a raw photo"
        of_what = f"the largest preview in it is {_by(largest)}" if jpeg else "it holds no preview that can be read"
        raise ValueError(f"{photo}, and {of_what}; export it as JPEG or PNG")
    orientation = None if _has_orientation(jpeg) else chain[0].get(_ORIENTATION, (None,))[0]
    return Selection(
        jpeg=jpeg, orientation=orientation, note=f"a raw photo: the preview of {_by(largest)} in it is read"
    )


def _jpeg(file: BinaryIO, directory: _Directory) -> bytes | None:
    """The JPEG file that an image is stored as."""
    for place, length in ((_JPEG, _JPEG_BYTES), (_STRIPS, _STRIP_BYTES)):
        if place in directory and length in directory and directory[length][0] <= MAX_PREVIEW_BYTES:
            file.seek(directory[place][0])
            if file.read(3) == b"\xff\xd8\xff":
                file.seek(directory[place][0])
                return file.read(directory[length][0])
    return None


def _jpeg_size(jpeg: bytes) -> tuple[int, int] | None:
    """(width, height); None for what Pillow does not read, such as a sensor's values in lossless JPEG."""
    from PIL import JpegImagePlugin  # imports what other files do not need

    try:
        with JpegImagePlugin.JpegImageFile(io.BytesIO(jpeg)) as image:
            return image.size
    except Exception:  # hostile bytes make plugins raise anything
        return None


def _has_orientation(jpeg: bytes) -> bool:
    """Whether a JPEG file says by itself how it is turned upright."""
    from PIL import JpegImagePlugin

    with suppress(Exception), JpegImagePlugin.JpegImageFile(io.BytesIO(jpeg)) as image:  # of broken metadata
        return _ORIENTATION in image.getexif()
    return False


def _subfile_type(directory: _Directory) -> int:
    return directory.get(_SUBFILE_TYPE, (0,))[0]


def _size(directory: _Directory) -> tuple[int, int]:
    return directory.get(_WIDTH, (0,))[0], directory.get(_HEIGHT, (0,))[0]


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]} pixels"
