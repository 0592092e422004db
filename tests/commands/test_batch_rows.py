"""Whatever stands in a row of a list, every field of it is used or refused."""

import json
import random

import pytest

from mlx_smolvlm.batch.inputs import read_items
from mlx_smolvlm.batch.lists import PATH_FIELDS, PROMPT_FIELDS

NAMES = [
    *PATH_FIELDS,
    *PROMPT_FIELDS,
    "Path",
    "file",
    "images",
    "url",
    "fps",
    "max_frames",
    "system",
    "label",
    "",
    "text",
]
VALUES = ["a.png", "b.mp4", "https://example.org/c.jpg", "What is it?", "", " ", None, 0, 1.5, True, [], ["a.png"], {}]


def mutated(draw):
    """A row as text; a few have a field twice, which a dictionary could not."""
    fields = [(draw.choice(NAMES), draw.choice(VALUES)) for _ in range(draw.randrange(5))]
    if draw.random() < 0.5:
        fields.insert(0, (draw.choice(PATH_FIELDS), "a.png"))
    return fields, "{" + ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in fields) + "}"


def check_rows(tmp_path, count):
    draw, num_used = random.Random(14), 0
    for number in range(count):
        fields, text = mutated(draw)
        path = tmp_path / f"{number}.jsonl"
        path.write_text(text)
        try:
            (item,) = read_items([str(path)])
        except ValueError as error:
            assert str(error).startswith(f"{path}, line 1: ")
            assert len(str(error)) < len(str(path)) + 400
        else:
            num_used += 1
            given = {name: value for name, value in fields if value is not None and str(value).strip()}
            assert len(fields) == len(dict(fields))
            assert set(given.values()) <= {item.path, item.prompt}, text
            assert (item.prompt is not None) == bool(given.keys() & set(PROMPT_FIELDS)), text
            assert item.is_video or "video" not in given, text
        path.unlink()
    assert num_used > count / 40


def test_every_field_is_used_or_refused(tmp_path):
    check_rows(tmp_path, 500)


@pytest.mark.slow
def test_every_field_of_many_rows_is_used_or_refused(tmp_path):
    check_rows(tmp_path, 10_000)
