"""Reading and writing DocTags takes time in proportion to their length, whatever they are made of."""

import time

import pytest
from support.made_doctags import made_doctags

from mlx_smolvlm.documents.doctags import parse_doctags
from mlx_smolvlm.documents.export import EXPORT_FORMATS, export

SHAPES = {  # made of a number of characters
    "made": lambda size: "".join(map(made_doctags, range(size // 600))),
    "text that is not closed": lambda size: "<text>a" * (size // 7),
    "tags that begin": lambda size: "<te" * (size // 3),
    "wrappers": lambda size: "<doctag>" * (size // 20) + "<page_break>" * (size // 20),
    "lists": lambda size: "<unordered_list><list_item>a" * (size // 30),
    "rows": lambda size: "<otsl>" + "<fcel>a<nl>" * (size // 11),
    "a long row, many short ones": lambda size: f"<otsl>{'<fcel>a' * (size // 14)}<nl>{'<fcel>b<nl>' * (size // 22)}",
    "a wide cell": lambda size: f"<otsl><fcel>{'a' * (size // 2)}{'<lcel>' * (size // 12)}",
    "cells that cover each other": lambda size: "<otsl>" + _triangle(int((size / 6) ** 0.5)),
    "values of many keys": lambda size: (
        f"<key_value_region>{'<key_1>a<link_2></key_1>' * (size // 40)}<value_2>" + "b" * (size // 2)
    ),
    "images": lambda size: "<text>" + "![](" * (size // 4),
    "code": lambda size: "<code>" + "<text>" * (size // 6),
}


def _triangle(side: int) -> str:
    return "".join(f"{'<ucel>' * row}<fcel>a{'<lcel>' * (side - row - 1)}<nl>" for row in range(side))


def seconds(shape: str, size: int) -> float:
    """Processor time of reading and of every format."""
    doctags = SHAPES[shape](size)
    start = time.process_time()
    tree = parse_doctags(doctags)
    for to in EXPORT_FORMATS:
        export(tree, to)
    return time.process_time() - start


@pytest.mark.parametrize("shape", SHAPES)
def test_100_kb_are_quick(shape):
    """What took time by the square of the length took seconds."""
    assert seconds(shape, 100_000) < 1.5


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_100_times_as_much_takes_about_100_times_as_long(shape):
    assert seconds(shape, 10_000_000) < 300 * max(seconds(shape, 100_000), 0.01)
