"""Pictures that are slow, or take much memory, though they have few pixels."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from mlx_smolvlm.media.image_files import MAX_IMAGE_FILE_BYTES, MAX_IMAGE_SIDE, MIN_SCANS
from mlx_smolvlm.media.images import load_image


def jpeg(num_extra_scans: int, size: tuple[int, int] = (64, 48)) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    last_scan = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + num_extra_scans * last_scan + b"\xff\xd9"


def test_scans_are_limited_by_the_pixels_that_they_go_over() -> None:
    """4,000 scans of 12 megapixels took 46 seconds; of a small picture they are no burden."""
    assert load_image(jpeg(100)).size == (64, 48)
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"a JPEG of \d+ scans, the limit at its size is \d+"):
        load_image(jpeg(4000, (4000, 3000)))
    assert time.monotonic() - start < 5
    with pytest.raises(ValueError, match=f"the limit at its size is {MIN_SCANS}"):
        load_image(jpeg(100), max_pixels=64 * 48)


@pytest.mark.parametrize("size", [(1, 178_956_970), (178_956_970, 1), (1, MAX_IMAGE_SIDE + 1)])
def test_a_side_has_a_limit_of_its_own(size: tuple[int, int]) -> None:
    """Rows of a pixel each took 5.8 GB."""
    header = b"P5 %d %d 255 " % size
    problem = f"{size[0]}x{size[1]} pixels, the limit of one side is {MAX_IMAGE_SIDE}"
    with pytest.raises(ValueError, match=problem):
        load_image(header + b"\0" * 100)
    with pytest.raises(ValueError, match=problem):
        load_image(np.broadcast_to(np.uint8(0), size[::-1]))


def test_a_long_picture_within_the_limit_is_read() -> None:
    assert load_image(b"P5 1 %d 255 " % MAX_IMAGE_SIDE + bytes(MAX_IMAGE_SIDE)).size == (1, MAX_IMAGE_SIDE)


def test_a_sparse_file_is_refused_by_its_size(tmp_path) -> None:
    path = tmp_path / "sparse.jpg"
    path.write_bytes(jpeg(0))
    with path.open("r+b") as file:
        file.truncate(30 * 10**9)
    with pytest.raises(ValueError, match=f"has 30000000000 bytes, the limit .* is {MAX_IMAGE_FILE_BYTES}"):
        load_image(path)
