"""The mini suite: a benchmark that is made on the spot, image by image and clip by clip, from a seed.

It needs no download and is made in seconds, so that anyone sees what a quantization, an adapter or a change costs. Row
by row it goes through its categories, and from easy to hard within each; the first rows of a longer suite are those of
a shorter one. Its scores compare checkpoints with each other. They are not those of any published benchmark.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import av
import numpy as np
from PIL import Image

from ...files import whole_folder
from . import mini_pages, mini_shapes
from .mini_question import MiniQuestion
from .mini_selection import DIFFICULTIES, MINI, MiniSuite

ROWS_FILE = "mini.jsonl"
_LETTERS = "ABCDEFGHIJ"

_MAKERS: dict[str, Callable[[Random, int], MiniQuestion]] = {
    "color": partial(mini_shapes.one_shape, asked="color"),
    "shape": partial(mini_shapes.one_shape, asked="shape"),
    "place": partial(mini_shapes.one_shape, asked="place"),
    "description": partial(mini_shapes.one_shape, asked="description"),
    "counting": mini_shapes.counted_shapes,
    "number": mini_shapes.written_number,
    "difference": mini_shapes.changed_shape,
    "motion": mini_shapes.moving_shape,
    "spatial": mini_shapes.two_shapes,
    "sequence": mini_shapes.color_sequence,
    "chart": mini_pages.bar_chart,
    "document": mini_pages.document,
    "receipt": mini_pages.receipt,
    "form": mini_pages.form,
    "sign": mini_pages.sign,
}


def mini_questions(suite: MiniSuite) -> Iterator[tuple[str, int, MiniQuestion]]:
    """Category, difficulty and question of each row."""
    for number in range(suite.num_rows):
        lap, place = divmod(number, len(suite.categories))
        category, difficulty = suite.categories[place], list(DIFFICULTIES)[lap % len(DIFFICULTIES)]
        rng = Random(f"{suite.seed}/{category}/{difficulty}/{lap // len(DIFFICULTIES)}")
        yield category, difficulty, _MAKERS[category](rng, difficulty=difficulty)  # type: ignore[call-arg]


def write_mini_suite(suite: MiniSuite, folder: Path) -> Path:
    """Write the suite into a new folder, whole or not at all: `mini.jsonl`, with images and clips beside it.

    A row has `index`, `dataset` ("mini"), `category`, `difficulty` (1 to 3), `split` (the same by name), `question`,
    `images` (paths from the folder) or `video`, options `A` to `J` if there are any, `answer`, `scorer`, and for the
    scorer "choice" `choices`.
    The same suite has the same pixels: images are PNG, clips H.264 without loss (4:2:0). Texts are drawn by Pillow's
    FreeType, whose versions may differ in the shade of an edge.

    Returns:
        The path of `mini.jsonl`.

    Raises:
        FileExistsError: there is such a folder, and it is not empty.
        OSError: nothing can be written there.
    """
    with whole_folder(folder) as new:
        (new / "media").mkdir()
        with open(new / ROWS_FILE, "w", encoding="utf-8") as file:
            for number, (category, difficulty, question) in enumerate(mini_questions(suite)):
                row = _row(number, category, difficulty, question, new)
                file.write(json.dumps(row) + "\n")
    return folder / ROWS_FILE


def mini_suite_at(suite: MiniSuite, folder: Path) -> Path:
    """The path of `mini.jsonl` of the suite in a folder, written if it is not there yet."""
    path = folder / suite.name
    return path / ROWS_FILE if (path / ROWS_FILE).is_file() else write_mini_suite(suite, path)


def _row(number: int, category: str, difficulty: int, question: MiniQuestion, folder: Path) -> dict[str, Any]:
    """A row of the file; its media are written."""
    name = f"{number:05}-{category}"
    row: dict[str, Any] = {"index": name, "dataset": MINI, "category": category, "difficulty": difficulty}
    row["split"] = DIFFICULTIES[difficulty]
    row["question"] = question.question
    if question.images:
        row["images"] = []
        for place, image in enumerate(question.images):
            path = f"media/{name}-{place + 1}.png" if len(question.images) > 1 else f"media/{name}.png"
            image.save(folder / path)
            row["images"].append(path)
    if question.frames:
        row["video"] = f"media/{name}.mp4"
        write_clip(question.frames, question.fps, folder / row["video"])
    row |= dict(zip(_LETTERS, question.options, strict=False))
    row |= {"answer": question.answer, "scorer": question.scorer}
    return row | ({"choices": question.choices} if question.choices else {})


def write_clip(frames: Sequence[Image.Image], fps: int, path: Path) -> None:
    """Write frames of even width and height as an H.264 file, lossless but for colors at half the resolution."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"qp": "0", "preset": "ultrafast", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = *frames[0].size, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(frame), format="rgb24")))
        container.mux(stream.encode(None))
