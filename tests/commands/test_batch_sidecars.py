"""`batch --sidecar`: an answer beside each picture, and nothing of others' overwritten."""

import json
import os
from xml.etree import ElementTree

import pytest
from support.batches import DEMO
from support.command_lines import assert_refused

from mlx_smolvlm.batch.items import Item
from mlx_smolvlm.batch.record import Result
from mlx_smolvlm.batch.sidecars import FORMS, Sidecars

DESCRIPTION = ".//{http://purl.org/dc/elements/1.1/}description//{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li"


def text_of(path):
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".txt":
        return content.removesuffix("\n")
    return (
        json.loads(content)["text"]
        if path.suffix == ".json"
        else ElementTree.fromstring(content).find(DESCRIPTION).text
    )


@pytest.mark.parametrize("form", FORMS)
def test_each_answer_lies_beside_its_picture(batch, pictures, form):
    result, done = batch(pictures, "--sidecar", form)
    assert result.status == 1  # one is broken
    for name in ("picture", "first", "second"):
        assert text_of(pictures / f"{name}.{form}") == done[str(pictures / f"{name}.png")]["text"]
    assert not (pictures / f"broken.{form}").exists()


def test_a_rerun_writes_those_that_are_missing_and_keeps_edited_ones(batch, pictures):
    (pictures / "broken.png").unlink()
    assert batch(pictures)[0].status == 0
    (pictures / "first.txt").write_text("my own words")
    (pictures / "second.txt").touch()  # killed between making and writing it
    result, done = batch(pictures, "--sidecar", "txt")
    assert result.status == 1
    problem = f"1 sidecar was not written: {pictures / 'first.txt'}: it has other content"
    assert problem in result.err
    assert "nothing was left to do" in result.err
    assert (pictures / "first.txt").read_text() == "my own words"
    for name in ("picture", "second"):
        assert text_of(pictures / f"{name}.txt") == done[str(pictures / f"{name}.png")]["text"]


def make(text, path="/nowhere/a.png"):
    return Result(path, None, "What?", text, None, "stop", 10, 5, 3, 0.5, "demo", "1-2-3")


@pytest.mark.parametrize("form", FORMS)
def test_only_what_nobody_has_edited_is_replaced(tmp_path, form):
    sidecars, place = Sidecars(form, []), tmp_path / f"a.{form}"
    sidecars.write(make("one", str(tmp_path / "a.png")))
    sidecars.write(make("two <&> \x00 \ud800 written by mlx-smolvlm 0123456789abcdef", str(tmp_path / "a.png")))
    if form == "txt":  # which bears no mark
        assert (text_of(place), sidecars.problems) == ("one", {place: "it has other content"})
        return
    assert text_of(place).startswith("two <&> ")
    assert sidecars.problems == {}
    sidecars.write(make("three", str(tmp_path / "a.png")))
    assert text_of(place) == "three"
    edited = place.read_text().replace("three", "four")
    place.write_text(edited)
    sidecars.write(make("five", str(tmp_path / "a.png")))
    assert place.read_text() == edited
    assert sidecars.problems == {place: "it has other content"}


def test_neither_links_nor_folders_are_written_through(tmp_path):
    sidecars = Sidecars("txt", [])
    (tmp_path / "a.txt").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "b.txt").mkdir()
    os.mkfifo(tmp_path / "c.txt")
    for name in "abc":
        sidecars.write(make("one", str(tmp_path / f"{name}.png")))
    assert not (tmp_path / "elsewhere").exists()
    assert [path.name for path in sidecars.problems] == ["a.txt", "b.txt", "c.txt"]


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        ([Item("a.png", "/x/a.png", False), Item("a.jpg", "/x/a.jpg", False)], "a.jpg is named like a.png"),
        ([Item("a.png", "/x/a.png", False, "A?"), Item("a.png", "/x/a.png", False)], "a.png is asked about twice"),
        ([Item("https://e.org/a.png", "https://e.org/a.png", False)], "is an address"),
    ],
)
def test_answers_without_a_place_of_their_own_are_refused(items, problem):
    with pytest.raises(ValueError, match=problem):
        Sidecars("txt", items)


def test_sidecars_are_no_input_and_that_is_said_first(batch, pictures):
    (pictures / "first.jpg").write_bytes((DEMO / "first.png").read_bytes())
    assert_refused(batch(pictures, "--sidecar", "xmp")[0], "both answers would go to first.xmp")
    (pictures / "first.jpg").unlink()
    for _ in range(2):
        assert "skipped" not in batch(pictures, "--sidecar", "txt")[0].err


def test_files_beside_images_are_not_counted_as_skipped(batch, pictures):
    """Those of an earlier run with --sidecar were, whatever the next run was asked."""
    for form in FORMS:
        batch(pictures, "--sidecar", form)
    (pictures / "notes.txt").write_text("of somebody")
    for options in ((), ("--sidecar", "txt")):
        assert "note: skipped 1 file: 1 TXT\n" in batch(pictures, *options)[0].err


def test_a_list_and_its_sidecars_may_have_one_suffix(batch, pictures):
    (pictures / "list.txt").write_text("first.png\nsecond.png\n")
    result, _ = batch(pictures / "list.txt", "--sidecar", "txt")
    assert result.status == 0, result.err
    assert sorted(path.name for path in pictures.glob("*.txt")) == ["first.txt", "list.txt", "second.txt"]
