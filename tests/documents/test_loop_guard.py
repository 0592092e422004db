"""Loops are found as soon as they are three times round; what only looks like one is left alone."""

import time

import pytest

from mlx_smolvlm.documents.loop_guard import LoopGuard


def element(tag, text, *box):
    return f"<{tag}>{''.join(f'<loc_{place}>' for place in box)}{text}</{tag}>\n"


def stops_after(elements, piece=7):
    """How many elements come before the guard stops; None if it does not. Text comes in small pieces."""
    guard = LoopGuard()
    for number, text in enumerate(elements, 1):
        for start in range(0, len(text), piece):
            if guard.add(text[start : start + piece]):
                return number
    return None


SAME = element("text", "Again", 10, 20, 30, 40)
OTHER = element("text", "Other", 10, 50, 30, 60)


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_equal_elements_are_a_loop_at_the_third(piece):
    assert stops_after(["<doctag>", OTHER, *[SAME] * 9], piece) == 5
    assert stops_after([SAME, SAME, OTHER, SAME, SAME, OTHER.replace("Other", "Third")], piece) is None


def test_equal_texts_that_march_on_are_a_loop():
    down = [element("list_item", "N/A", 10, 20 + 15 * step, 90, 30 + 15 * step) for step in range(9)]
    across = [element("text", "x", 10 + 21 * step, 20, 25 + 20 * step, 30) for step in range(9)]
    assert stops_after(down) == stops_after(across) == 3
    places = [20, 90, 110, 300, 310, 490]
    assert stops_after([element("list_item", "N/A", 10, top, 90, top + 9) for top in places]) is None
    assert (
        stops_after([element("text", str(step), 10, 20 + 15 * step, 90, 30 + 15 * step) for step in range(9)]) is None
    )


def test_loops_of_several_elements_and_of_whole_lists_are_found():
    assert stops_after([SAME, OTHER] * 5) == 6
    lists = [f"<unordered_list>{SAME}</unordered_list>"] * 5
    assert stops_after(lists) == 3


def test_a_gallery_is_no_loop_but_one_image_over_and_over_is():
    gallery = [element("picture", "", 10 + 100 * step, 20, 90 + 100 * step, 90) for step in range(5)]
    assert stops_after(gallery) is None
    assert stops_after([element("picture", "", 10, 20, 90, 90)] * 5) == 3


def test_a_table_of_equal_rows_is_no_loop():
    rows = "<fcel>0<fcel>0<nl>" * 200
    assert stops_after([element("otsl", rows, 10, 20, 30, 40), OTHER]) is None
    assert stops_after(["<otsl><loc_1><loc_2><loc_3><loc_4>", *["<fcel>0<fcel>0<nl>"] * 200]) is None


def test_time_is_linear():
    """A page of 8192 tokens is 40 kB; this is as much as ten of them, within one element that never ends."""
    start = time.process_time()
    guard = LoopGuard()
    for _ in range(40_000):
        assert not guard.add("<b></b>a ")
    assert time.process_time() - start < 5
