"""TIFF files of several images: pages are chosen and named, and a thumbnail is never taken for the photo."""

import io
import os
import struct
import warnings

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin
from support.pictures import saved

from mlx_smolvlm import MediaOptions
from mlx_smolvlm.media.images import load_image

COLOURS = ("red", "lime", "blue")
SENSOR = 32803
RGB = [(258, 3, [8, 8, 8]), (262, 3, [2]), (277, 3, [3])]


def pages(*images, **options):
    file = io.BytesIO()
    images[0].save(file, "TIFF", save_all=True, append_images=images[1:], **options)
    return file.getvalue()


DOCUMENT = pages(*(Image.new("RGB", (8, 8), colour) for colour in COLOURS))


def tiff(directories, *, subs=(), big_endian=False, magic=b""):
    """A TIFF file of directories, each a list of (tag, type, values) and the bytes of its image; `subs` belong to the
    first. An image's place is filled in where a tag of strips or of a JPEG file (273, 513) says None."""
    order = ">" if big_endian else "<"
    head = (b"MM" if big_endian else b"II") + struct.pack(f"{order}HL", 42, 0) + magic
    content = bytearray(head)
    places = []
    for number, (tags, image) in enumerate([*subs, *directories]):
        tags = [(tag, kind, [len(content)] if values is None else values) for tag, kind, values in tags]
        content += image + b"\0" * (len(image) % 2)
        if number == len(subs) and subs:
            tags.append((330, 4, places[: len(subs)]))
        outside, entries = bytearray(), b""
        start = len(content) + 2 + 12 * len(tags) + 4
        for tag, kind, values in sorted(tags):
            data = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'L'}", *values)
            entries += struct.pack(f"{order}HHL", tag, kind, len(values))
            if len(data) > 4:
                entries += struct.pack(f"{order}L", start + len(outside))
                outside += data
            else:
                entries += data.ljust(4, b"\0")
        places.append(len(content))
        content += struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}L", 0) + outside
        if number > len(subs):  # the directory before it points here
            before = places[number - 1]
            (count,) = struct.unpack_from(f"{order}H", content, before)
            struct.pack_into(f"{order}L", content, before + 2 + 12 * count, places[number])
    struct.pack_into(f"{order}L", content, 4, places[len(subs)])
    return bytes(content)


def plain(size, colour, reduced=False, **more):
    """A directory with uncompressed pixels."""
    image = Image.new("RGB", size, colour).tobytes()
    tags = [(254, 4, [int(reduced)]), (256, 4, [size[0]]), (257, 4, [size[1]]), *RGB, (259, 3, [1]), (273, 4, None)]
    return [*tags, (278, 4, [size[1]]), (279, 4, [len(image)]), *more.get("tags", [])], image


def sensor(size):
    """A directory with a sensor's values, which are not read."""
    tags = [(254, 4, [0]), (256, 4, [size[0]]), (257, 4, [size[1]]), (259, 3, [1]), (262, 3, [SENSOR])]
    return [*tags, (258, 3, [16]), (273, 4, None), (279, 4, [4])], bytes(4)


def jpeg(size, colour="blue", by_strip=False, **options):
    """A directory with a JPEG file: as Nikon stores it, or as Adobe does."""
    image = saved(Image.new("RGB", size, colour), "JPEG", **options)
    places = ((273, 279) if by_strip else (513, 514)) if image else ()
    tags = [(254, 4, [1]), (259, 3, [7 if by_strip else 6]), (places[0], 4, None), (places[1], 4, [len(image)])]
    return tags, image


def test_the_first_page_is_read_and_the_others_are_named():
    with pytest.warns(UserWarning, match=r"^image bytes .*: page 1 of 3 is read; choose another with --page"):
        assert load_image(DOCUMENT).getpixel((0, 0)) == (255, 0, 0)
    for number, colour in enumerate(COLOURS, 1):
        assert load_image(DOCUMENT, page=number).getpixel((0, 0)) == Image.new("RGB", (1, 1), colour).getpixel((0, 0))


@pytest.mark.parametrize(
    ("source", "page", "problem"),
    [
        (DOCUMENT, 4, "page is 4, but it has 3 pages"),
        (pages(Image.new("L", (8, 8))), 2, "page is 2, but it has 1 page$"),
        (saved(Image.new("L", (8, 8)), "PNG"), 2, "page is 2, but only TIFF files have several"),
        (Image.new("L", (8, 8)), 2, "page is 2, but these are the pixels of one page"),
        (np.zeros((8, 8), np.uint8), 2, "page is 2, but these are the pixels of one page"),
    ],
)
def test_a_page_that_there_is_not_is_refused(source, page, problem):
    with pytest.raises(ValueError, match=problem):
        load_image(source, page=page)


def test_a_page_can_be_chosen_for_all_images_and_for_one(pair):
    images = [{"type": "image", "image": DOCUMENT}, {"type": "image", "image": DOCUMENT, "page": 3}]
    messages = [{"role": "user", "content": [*images, {"type": "text", "text": "What?"}]}]
    inputs = pair[1](messages, media_options=MediaOptions(page=2, do_image_splitting=False))
    assert [tuple(tile[0, 0]) for tile in inputs.pixel_values] == [(0, 255, 0), (0, 0, 255)]


def test_reduced_copies_and_masks_are_no_pages():
    tag = TiffImagePlugin.ImageFileDirectory_v2()
    tag[254] = 1
    thumbnail_first = pages(Image.new("RGB", (4, 4), "red"), Image.new("RGB", (40, 30), "blue"), tiffinfo=tag)
    assert load_image(tiff([plain((4, 4), "red", True), plain((40, 30), "blue")])).size == (40, 30)
    assert load_image(tiff([plain((40, 30), "red"), plain((4, 4), "blue", True)])).size == (40, 30)
    assert load_image(tiff([plain((4, 4), "red", True)])).size == (4, 4)  # all that there is
    assert load_image(thumbnail_first).size == (40, 30)  # Pillow gives both images the tag
    with pytest.raises(ValueError, match=r"only a reduced copy of 4x4 pixels can be read of an image of 40x30 pixels"):
        load_image(tiff([plain((4, 4), "red", True)], subs=[plain((40, 30), "blue")]))


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("by_strip", [False, True])
def test_of_a_raw_photo_the_full_size_preview_is_read(big_endian, by_strip):
    """Pillow reads the thumbnail, as if it were all."""
    subs = [jpeg((60, 40), by_strip=by_strip), sensor((64, 42))]
    photo = tiff([plain((16, 12), "red", True, tags=[(274, 3, [6])])], subs=subs, big_endian=big_endian)
    with pytest.warns(UserWarning, match=r"a raw photo: the preview of 60x40 pixels in it is read"):
        image = load_image(photo)
    assert image.size == (40, 60)  # upright, as the photo's own tag says
    assert image.getpixel((0, 0))[2] > 250


def test_a_preview_that_states_its_orientation_is_turned_once():
    """It was turned by its own tag and then by that of the photo."""
    exif = Image.Exif()
    exif[274] = 6
    subs = [jpeg((60, 40), exif=exif), sensor((64, 42))]
    photo = tiff([plain((16, 12), "red", True, tags=[(274, 3, [6])])], subs=subs)
    with pytest.warns(UserWarning, match=r"a raw photo: the preview of 60x40 pixels in it is read"):
        assert load_image(photo).size == (40, 60)


def test_a_raw_photo_without_a_full_size_preview_is_refused():
    thumbnail = plain((16, 12), "red", True)
    with pytest.raises(ValueError, match=r"raw photo of 6000x4000 pixels, and the largest preview in it is 60x40"):
        load_image(tiff([thumbnail], subs=[jpeg((60, 40)), sensor((6000, 4000))]))
    with pytest.raises(ValueError, match=r"raw photo of 6000x4000 pixels, and it holds no preview that can be read"):
        load_image(tiff([thumbnail], subs=[sensor((6000, 4000))]))
    with pytest.raises(ValueError, match="page is 2, but a raw photo has one"):
        load_image(tiff([thumbnail], subs=[sensor((64, 42))]), page=2)


def test_a_photo_of_canons_kind_is_measured_by_its_exif_data():
    image = saved(Image.new("RGB", (60, 40), "blue"), "JPEG")
    for stated, is_full in (((60, 40), True), ((600, 400), False)):
        exif = [(40962, 4, [stated[0]]), (40963, 4, [stated[1]])], b""
        magic = b"CR\x02\x00" + bytes(4)
        first = len(tiff([], subs=[exif], magic=magic)) if False else 16
        tags = [
            (256, 4, [60]),
            (257, 4, [40]),
            (259, 3, [6]),
            (273, 4, None),
            (279, 4, [len(image)]),
            (34665, 4, [first]),
        ]
        photo = tiff([(tags, image)], subs=[exif], magic=magic)
        if is_full:
            with pytest.warns(UserWarning, match="the preview of 60x40 pixels"):
                assert load_image(photo).size == (60, 40)
        else:
            with pytest.raises(ValueError, match="raw photo of 600x400 pixels, and the largest preview in it is 60x40"):
                load_image(photo)


@pytest.mark.parametrize(
    "head", [b"IIRO\x08\0\0\0", b"IIU\0\x08\0\0\0", b"FUJIFILMCCD-RAW ", b"\0\0\0\x18ftypcrx \0\0\0\1"]
)
def test_other_raw_photos_are_named(head):
    with pytest.raises(ValueError, match="a raw photo of a kind that is not read; export it as JPEG or PNG"):
        load_image(head + bytes(64))


def test_damaged_directories_are_refused_in_one_line():
    """Cut anywhere, with any byte changed, in circles: an image or one line."""
    whole = tiff([plain((4, 4), "red", True)], subs=[jpeg((6, 4)), sensor((6, 4))])
    random = np.random.default_rng(0)
    for length in range(8, len(whole), 37):
        damaged = bytearray(whole[:length])
        damaged[int(random.integers(4, length))] = int(random.integers(256))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                load_image(bytes(damaged))
            except ValueError as error:
                assert "\n" not in str(error)


# Other sources


class Path:
    def __init__(self, path):
        self._path = path

    def __fspath__(self):
        return self._path


def test_files_arrays_and_paths_of_other_libraries_are_sources(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    content = saved(Image.fromarray(pixels), "PNG")
    path = tmp_path / "image.png"
    path.write_bytes(content)
    written = io.BytesIO()
    written.write(content)  # at its end
    pipe = io.BytesIO(content)
    pipe.seekable = lambda: False
    with path.open("rb") as file:
        file.read(3)
        for source in (written, file, file, pipe, Path(str(path)), Path(os.fsencode(path)), mx.array(pixels)):
            assert np.array_equal(np.asarray(load_image(source)), pixels), source


def test_files_and_arrays_that_cannot_be_read_are_refused(tmp_path):
    path = tmp_path / "text.png"
    path.write_text("hi")
    with path.open() as file, pytest.raises(TypeError, match=r"text\.png: a file opened in text mode; open it with"):
        load_image(file)
    with pytest.raises(ValueError, match="expected"):
        load_image(mx.zeros((1, 5, 7, 3)))
    with pytest.raises(ValueError, match=r"bfloat16, shape \(5, 7, 3\)\): no numpy array can be made of it"):
        load_image(mx.zeros((5, 7, 3), mx.bfloat16))
    closed = io.BytesIO()
    closed.close()
    for source in (closed, io.BytesIO(), object(), 5, io.StringIO("x"), io.BytesIO, [1, 2]):
        with pytest.raises((ValueError, TypeError)) as caught:
            load_image(source)
        assert len(str(caught.value)) < 300
