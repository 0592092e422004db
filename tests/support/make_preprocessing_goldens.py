"""Record how the reference tiles pictures and samples videos: goldens/tiling.json and goldens/video_sampling.json.

    PYTHONPATH=.:tests python tests/support/make_preprocessing_goldens.py      # needs what make_goldens.py needs

tiling.json is a list of
    {"longest_edge", "tile", "do_image_splitting", "width", "height", "rows", "cols", "sha256"}
where sha256 is that of the 8-bit tiles (n, tile, tile, 3) of `media.sized_picture(width, height)` in row-major order,
or null where only the grid was recorded. The geometries are those of the released checkpoints, and one that meets the
limit of 4096 pixels a side.

video_sampling.json is a list of
    {"total_num_frames", "fps", "duration_s", "max_frames", "sample_fps", "frame_indices"}.
"""

import hashlib
import json
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from support.media import sized_picture
from support.reference import eight_bit, sample_frames, tile_picture

GOLDENS = Path(__file__).parent.parent / "goldens"
GEOMETRIES = [(2048, 512), (1536, 384), (1456, 364)]  # longest edge, tile
LIMITED = (4608, 768)  # a longest edge beyond the limit of 4096

DEGENERATE = [(1, 1), (2, 1), (3, 3), (1, 3000), (3000, 1), (5000, 7), (7, 5000), (17, 9), (4096, 4097), (4097, 4096)]
MULTIPLES = [(512, 512), (1024, 512), (2048, 1536), (2048, 2048), (384, 384), (384, 768), (1536, 1152), (1536, 384)]
MULTIPLES += [(364, 364), (728, 364), (1092, 1456), (1456, 1456), (4096, 4096)]
ORDINARY = [(640, 480), (480, 640), (800, 600), (1280, 720), (1920, 1080), (1080, 1920), (3840, 2160), (4032, 3024)]
ORDINARY += [(1170, 2532), (1242, 1660), (2480, 3508), (1654, 2339), (300, 500), (256, 256), (900, 120), (320, 240)]
# One more pixel is one more row (of 1/4, 2/4, 3/4 of the longest edge), or not, because sizes are made even.
BORDERS = [(400, 99), (400, 100), (400, 101), (1000, 250), (1000, 251), (1000, 499), (1000, 500), (1000, 501)]
BORDERS += [(750, 1000), (751, 1000), (999, 1000), (1000, 999), (2047, 2048), (2048, 2047), (1537, 1536), (33, 100)]
# side / (width / height) falls just below a whole odd number in floating point, and an even one results
FLOATING = [(512, 75), (512, 77), (117, 512), (30, 416), (34, 224), (45, 624)]
SIZES = DEGENERATE + MULTIPLES + ORDINARY + BORDERS + FLOATING
HASHED = [(1, 1), (1, 3000), (5000, 7), (17, 9), (512, 512), (640, 480), (300, 500), (512, 75), (30, 416)]


def tiling(longest_edge: int, tile: int, split: bool, width: int, height: int, hashed: bool) -> dict:
    """One record; where no hash is wanted an empty picture will do."""
    image = sized_picture(width, height) if hashed else Image.new("RGB", (width, height))
    output = tile_picture(image, longest_edge, tile, do_image_splitting=split, do_normalize=hashed)
    record = {"longest_edge": longest_edge, "tile": tile, "do_image_splitting": split}
    record |= {"width": width, "height": height, "rows": output["rows"][0][0], "cols": output["cols"][0][0]}
    digest = None
    if hashed:
        digest = hashlib.sha256(eight_bit(np.stack(output["pixel_values"])).tobytes()).hexdigest()
    return record | {"sha256": digest}


def all_tilings() -> list[dict]:
    """Every size in every geometry, then a few unsplit, then those at the limit."""
    records = [tiling(*geometry, True, *size, size in HASHED) for geometry in GEOMETRIES for size in SIZES]
    records += [tiling(*geometry, False, *size, True) for geometry in GEOMETRIES for size in ((640, 480), (30, 416))]
    records += [tiling(*LIMITED, True, *size, size == (30, 416)) for size in ((640, 480), (30, 416), (500, 500))]
    return records


def sampling(total: int, fps: float, duration: float, max_frames: int, sample_fps: float) -> dict:
    """One record."""
    indices = sample_frames(total, fps, duration, max_frames, sample_fps)
    record = {"total_num_frames": total, "fps": fps, "duration_s": duration, "max_frames": max_frames}
    return record | {"sample_fps": sample_fps, "frame_indices": indices}


def all_samplings() -> list[dict]:
    """Videos from one frame to ten minutes, under several settings; the duration is total / fps but for a few."""
    videos = [(1, 25.0), (2, 30.0), (12, 24.0), (24, 24.0), (50, 10.0), (75, 30.0), (200, 5.0), (313, 29.97)]
    videos += [(1500, 25.0), (1998, 30000 / 1001), (1980, 30.0), (2010, 30.0), (3600, 60.0), (18000, 30.0), (10, 0.5)]
    settings = [(64, 1), (8, 1), (64, 2), (50, 0.5), (1, 1)]
    records = [sampling(t, f, t / f, *setting) for (t, f), setting in product(videos, settings)]
    # the file states another duration than its frames give; the borders of the rule that skips a second at both ends
    borders = [(100, 25.0, 4.5), (100, 25.0, 2.49), (100, 25.0, 2.51), (300, 30.0, 9.99), (300, 30.0, 10.01)]
    return records + [sampling(*video, 8, 1) for video in borders]


def write_lines(path: Path, records: list[dict]) -> None:
    """A JSON list, one record a line."""
    lines = ",\n".join(json.dumps(record) for record in records)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def main() -> None:
    """Write both files."""
    write_lines(GOLDENS / "tiling.json", all_tilings())
    write_lines(GOLDENS / "video_sampling.json", all_samplings())


if __name__ == "__main__":
    main()
