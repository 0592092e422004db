"""What INPUT of the batch command may be, and which faults in it are refused."""

import errno
import json
import os
import time
from pathlib import Path

import pytest
from PIL import Image, TiffImagePlugin
from support.batches import DEMO

from mlx_smolvlm.batch.inputs import LeftOut, read_items
from mlx_smolvlm.batch.items import Item
from mlx_smolvlm.batch.result_files import is_results_file, rank_file, rank_files
from mlx_smolvlm.media.images import load_image


@pytest.fixture
def folder(tmp_path):
    """Pictures at two depths, and what is no picture."""
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("b.png", "a.JPG", "sub/c.webp", "notes.txt", "clip.mp4", ".d.png", ".hidden/e.png"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    return tmp_path


def names(items, folder):
    return [os.path.relpath(item.path, folder) for item in items]


def test_a_folder_is_its_pictures_in_order(folder):
    assert names(read_items([str(folder)]), folder) == ["a.JPG", "b.png", "sub/c.webp"]


def test_links_to_folders_are_followed_but_not_in_circles(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "e.png").touch()
    (folder / "linked").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)
    (folder / "again").symlink_to(folder / "sub")
    assert names(read_items([str(folder)]), folder) == ["a.JPG", "b.png", "linked/e.png", "sub/c.webp"]


def test_a_question_mark_in_a_name_is_part_of_it(tmp_path):
    (tmp_path / "What is this?.mp4").touch()
    (item,) = read_items([str(tmp_path / "What is this?.mp4")])
    assert item.is_video
    (tmp_path / "list.jsonl").write_text('"https://example.org/clip.mp4?size=2"')
    (item,) = read_items([str(tmp_path / "list.jsonl")])
    assert item.is_video


def test_lists_may_name_files_of_the_home_folder(tmp_path, monkeypatch):
    """They were looked for in a folder called ~ beside the list."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "a.png").touch()
    for name, text in (("list.jsonl", '"~/a.png"'), ("list.txt", "~/a.png")):
        (tmp_path / name).write_text(text)
        (item,) = read_items([str(tmp_path / name)])
        assert (item.path, item.source) == ("~/a.png", "~/a.png")


def test_a_glob_names_files_of_any_kind(folder):
    items = read_items([f"{folder}/*"])
    assert names(items, folder) == ["a.JPG", "b.png", "clip.mp4", "notes.txt"]
    assert [item.is_video for item in items] == [False, False, True, False]
    assert names(read_items([f"{folder}/**/*.webp"]), folder) == ["sub/c.webp"]


def test_several_inputs_are_one_list_without_doubles(folder):
    items = read_items([str(folder / "b.png"), str(folder / "clip.mp4"), str(folder)])
    assert names(items, folder) == ["b.png", "clip.mp4", "a.JPG", "sub/c.webp"]


def test_a_name_with_the_characters_of_patterns_is_a_name(tmp_path):
    (tmp_path / "a[1].png").touch()
    assert names(read_items([str(tmp_path / "a[1].png")]), tmp_path) == ["a[1].png"]


def test_results_are_no_input(folder):
    for name in ("out.png", "out.png.rank1", ".out.png.partial"):
        (folder / name).touch()

    def is_left_out(path):
        return is_results_file(path, folder / "sub" / ".." / "out.png")

    assert "out.png" not in names(read_items([str(folder)], is_left_out), folder)
    assert names(read_items([f"{folder}/out*"]), folder) == ["out.png", "out.png.rank1"]
    with pytest.raises(FileNotFoundError, match="no file matches"):
        read_items([f"{folder}/out*"], is_left_out)
    with pytest.raises(ValueError, match="both the input and where results are kept"):
        read_items([str(folder / "out.png")], is_left_out)


def test_files_of_other_processes_bear_the_name_that_was_given(folder, monkeypatch):
    (folder / "sub" / "out.jsonl.rank2").touch()
    (folder / "sub" / "out.jsonl.rank").touch()
    monkeypatch.chdir(folder / "sub")
    for out in (Path("out.jsonl"), folder / "sub" / "out.jsonl"):
        assert rank_files(out) == [rank_file(out, 2)]


def test_a_jsonl_list(tmp_path):
    path = tmp_path / "list.jsonl"
    entries = [
        {"path": "a.png", "video": None},
        {"image": "/b.png", "question": "What?", "prompt": ""},
        {"video": "frames.bin", "prompt": " "},
        {"file_name": "https://example.org/c.png?x=1"},
        "d.mp4",
        {"path": "a.png"},
    ]
    path.write_text("\ufeff" + "\n\n".join(map(json.dumps, entries)), encoding="utf-8")
    assert read_items([str(path)]) == [
        Item("a.png", str(tmp_path / "a.png"), False),
        Item("/b.png", "/b.png", False, "What?"),
        Item("frames.bin", str(tmp_path / "frames.bin"), True),
        Item("https://example.org/c.png?x=1", "https://example.org/c.png?x=1", False),
        Item("d.mp4", str(tmp_path / "d.mp4"), True),
    ]


def test_a_csv_list(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text('id,path,prompt\n1,a.png,"Two\nlines?"\n2,"b, c.png",\n', encoding="utf-8")
    assert read_items([str(path)], ignored_fields=["id"]) == [
        Item("a.png", str(tmp_path / "a.png"), False, "Two\nlines?"),
        Item("b, c.png", str(tmp_path / "b, c.png"), False),
    ]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("x.jsonl", b"", "names nothing"),
        ("x.jsonl", b'{"path": "a.png"}\n{"path": ', "line 2 is not JSON"),
        ("x.jsonl", b"[" * 100_000, "line 1 is not JSON"),
        ("x.jsonl", b"3", "line 1: expected an object with a path"),
        ("x.jsonl", b'{"picture": "a.png"}', "line 1: no path; expected one of the fields path, file_name"),
        ("x.jsonl", b'{"path": "a.png", "prompt": 3}', "line 1: prompt is 3"),
        ("x.jsonl", b'{"path": ["a.png"]}', "line 1: path is"),
        ("x.jsonl", b'{"path": "\xff"}', "not UTF-8"),
        ("x.csv", b"", "names nothing"),
        ("x.csv", b"path\n", "names nothing"),
        ("x.csv", b"picture,prompt\na.png,b\n", "begins with the columns picture, prompt"),
        ("x.csv", b"path,prompt\na.png\n", "line 2: expected 2 values"),
        ("x.csv", b'path\n"a.png', "is not CSV"),
        ("x.csv", b"path\n\xff\n", "not UTF-8"),
        ("x.csv", b"path,prompt\n,b\n", "line 2: no path"),
        ("x.csv", b"path,path\na.png,b.png\n", 'the field "path" stands there twice'),
        ("x.csv", b"path,label\na.png,cat\n", 'line 2: the field "label" is not known'),
        ("x.jsonl", b'{"path": "a.png", "fps": 2}', 'line 1: the field "fps" is not known'),
        ("x.jsonl", b'{"path": "a.png", "label": null}', 'line 1: the field "label" is not known'),
        ("x.jsonl", b'{"image": "a.png", "video": "b.mp4"}', "line 1: image and video each give a path"),
        ("x.jsonl", b'{"image": "a.png", "video": 3}', "line 1: video is 3, expected text"),
        ("x.jsonl", b'{"path": "a.png", "prompt": "A?", "question": "B?"}', "prompt and question each give a prompt"),
        ("x.jsonl", b'{"path": "a.png", "path": "b.png"}', 'line 1: the field "path" stands there twice'),
        ("x.txt", b"A red circle.\nA star.\n", 'line 1: there is no file "A red circle."'),
        ("x.txt", b"", "names nothing"),
    ],
)
def test_a_faulty_list_is_refused_with_its_line(tmp_path, name, content, problem):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r".+") as caught:
        read_items([str(tmp_path / name)])
    assert problem in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("source", "problem"),
    [("empty", "no images in"), ("no such", "no folder or file"), ("no*", "no file matches"), ("pipe", "neither")],
)
def test_what_names_nothing_is_refused(tmp_path, source, problem):
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises((ValueError, FileNotFoundError), match=problem):
        read_items([str(tmp_path / source)])


def write_picture(path, form="PNG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        Image.new("RGB", (16, 8), "red").save(file, form)


@pytest.mark.parametrize(
    ("suffix", "form"),
    [
        *((f".{name}", "JPEG") for name in ("jpg", "jfif", "JFIF", "jpe", "png")),
        *((".mpo", "MPO"), (".apng", "PNG"), (".hif", "AVIF"), (".ico", "ICO"), (".tga", "TGA"), ("", "PNG")),
        *((".dat", form) for form in ("GIF", "BMP", "TIFF", "PPM", "WEBP", "JPEG2000", "TGA", "ICO")),
    ],
)
def test_a_picture_in_a_folder_is_told_by_its_content(tmp_path, suffix, form):
    write_picture(tmp_path / f"a{suffix}", form)
    left_out = LeftOut()
    assert names(read_items([str(tmp_path)], left_out=left_out), tmp_path) == [f"a{suffix}"]
    assert left_out.notes() == []
    assert load_image(tmp_path / f"a{suffix}").size == (16, 8)


TIFF_WITH_PREVIEW = TiffImagePlugin.ImageFileDirectory_v2()
TIFF_WITH_PREVIEW[254] = 1


def test_what_is_skipped_in_a_folder_is_named_and_counted(tmp_path):
    write_picture(tmp_path / "a.jpg", "JPEG")
    for name in ("sub/b.NEF", "sub/c.nef", "d.dng"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (16, 8)).save(tmp_path / name, "TIFF", tiffinfo=TIFF_WITH_PREVIEW)
    (tmp_path / "e.mp4").write_bytes((DEMO / "clip.mp4").read_bytes())
    left_out = LeftOut()
    assert names(read_items([str(tmp_path)], left_out=left_out), tmp_path) == ["a.jpg"]
    assert left_out.notes() == ["skipped 4 files: 2 NEF, 1 DNG, 1 MP4"]


def test_a_folder_that_holds_no_pictures_says_what_it_holds(tmp_path):
    (tmp_path / "clip.jpg").write_bytes((DEMO / "clip.mp4").read_bytes())
    (tmp_path / "README").write_text("A text.")
    with pytest.raises(ValueError, match=r"no images in .*; skipped 2 files: 1 unknown, 1 video"):
        read_items([str(tmp_path)])


def test_a_folder_that_cannot_be_read_is_counted_and_not_the_end(tmp_path, monkeypatch):
    write_picture(tmp_path / "a.png")
    write_picture(tmp_path / "shut" / "b.png")
    scandir = os.scandir

    def refuse(path):  # the superuser may read anything
        if str(path).endswith("shut"):  # others pass a descriptor
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    left_out = LeftOut()
    assert names(read_items([str(tmp_path)], left_out=left_out), tmp_path) == ["a.png"]
    assert left_out.notes() == [f"1 folder could not be read: {tmp_path / 'shut'} (Permission denied)"]
    with pytest.raises(PermissionError):
        read_items([str(tmp_path / "shut")])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", "path;question\na.mp4;What?\n/b.png;\n"),
        ("x.tsv", "path\tprompt\na.mp4\tWhat?\n/b.png\t\n"),
        ("x.ndjson", '{"video": "a.mp4", "question": "What?"}\n"/b.png"\n'),
    ],
)
def test_lists_as_other_programs_write_them(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert read_items([str(tmp_path / name)]) == [
        Item("a.mp4", str(tmp_path / "a.mp4"), True, "What?"),
        Item("/b.png", "/b.png", False),
    ]


def test_a_text_file_is_a_list_of_paths_and_addresses(tmp_path):
    (tmp_path / "list.txt").write_text("a.png\n\nhttps://example.org/b.mp4?x=1\n")
    assert read_items([str(tmp_path / "list.txt")]) == [
        Item("a.png", str(tmp_path / "a.png"), False),
        Item("https://example.org/b.mp4?x=1", "https://example.org/b.mp4?x=1", True),
    ]


def test_fields_are_ignored_where_there_are_some(tmp_path):
    (tmp_path / "list.csv").write_text("path,prompt,id\na.png,What?,1\n")
    source = str(tmp_path / "list.csv")
    assert read_items([source], ignored_fields=["prompt", "id"]) == [Item("a.png", str(tmp_path / "a.png"), False)]
    with pytest.raises(ValueError, match="--ignore-fields ID: no list of the input has such a field"):
        read_items([source], ignored_fields=["ID", "id"])


def test_an_address_is_an_input():
    addresses = ["https://example.org/a.jpg", "http://example.org/b.webm"]
    assert [(item.path, item.is_video) for item in read_items(addresses)] == list(
        zip(addresses, (False, True), strict=True)
    )


def test_names_that_are_not_unicode_are_kept(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.png")).touch()
    except OSError:
        pytest.skip("this file system takes Unicode names alone")
    (item,) = read_items([str(tmp_path)])
    assert os.fsencode(item.path).endswith(b"caf\xe9.png")


def test_a_long_list_is_read_in_no_time(tmp_path):
    path = tmp_path / "list.jsonl"
    path.write_text("".join(f'{{"path": "{number}.png"}}\n' for number in range(10_000)))
    start = time.process_time()
    assert len(read_items([str(path)])) == 10_000
    assert time.process_time() - start < 2
