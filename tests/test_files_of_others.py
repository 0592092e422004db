"""Writing whole or not at all, among folders of others and interrupted anywhere."""

import gc
import os
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from support.slow_cases import quick_and_slow

from mlx_smolvlm import files
from mlx_smolvlm.files import whole_file, whole_folder


def write_folder(target: Path) -> None:
    with whole_folder(target, lambda target: None) as folder:
        (folder / "file").write_text("new", encoding="utf-8")


def foreign_folder(path: Path) -> None:
    (path / "replaced").mkdir(parents=True)
    (path / "replaced" / "file").write_text("theirs", encoding="utf-8")


def foreign_link(path: Path) -> None:
    (path.parent / "elsewhere").mkdir()
    (path.parent / "elsewhere" / files._MARKER).touch()
    path.symlink_to(path.parent / "elsewhere")


def folder_with_a_linked_marker(path: Path) -> None:
    path.mkdir()
    (path / files._MARKER).symlink_to("/dev/null")


FOREIGN = {
    "folder": foreign_folder,
    "link": foreign_link,
    "linked marker": folder_with_a_linked_marker,
    "pipe": os.mkfifo,
    "file": Path.touch,
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_only_has_the_name_of_remains_stays(tmp_path: Path, kind: str) -> None:
    remains = tmp_path / ".out.partial.12345678"
    FOREIGN[kind](remains)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    write_folder(tmp_path / "out")
    assert (tmp_path / "out" / "file").read_text(encoding="utf-8") == "new"
    after = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    assert [path for path in after if path.parts[0] != "out"] == before


def test_remains_of_another_user_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remains = tmp_path / ".out.partial.12345678"
    foreign_folder(remains)
    (remains / files._MARKER).touch()
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    write_folder(tmp_path / "out")
    assert (remains / "replaced" / "file").exists()
    monkeypatch.undo()
    write_folder(tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["out"]


def interrupted_at(number: int, work: Any) -> bool:
    """Run `work` and press Ctrl-C before the n-th line of `files.py`; False if there are not as many."""
    lines = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename != files.__file__:
            return None
        if event == "line":
            lines += 1
            if lines == number:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.fixture
def quick_collections() -> None:
    """Collections of garbage look at what the test makes alone, not at what is there for good."""
    gc.collect()
    gc.freeze()


@pytest.mark.usefixtures("quick_collections")
@pytest.mark.parametrize(
    ("kind", "is_there"), quick_and_slow(product(["file", "folder"], [False, True]), [("folder", True)])
)
def test_ctrl_c_before_any_line_leaves_nothing_half_done(
    tmp_path: Path, kind: str, is_there: bool, pytestconfig: pytest.Config
) -> None:
    every = 1 if pytestconfig.getoption("--slow") else 4  # lines; one more or less with each version of Python

    def work() -> None:
        if kind == "folder":
            write_folder(target)
        else:
            with whole_file(target) as path:
                path.write_text("new", encoding="utf-8")

    for number in range(1, 500, every):
        root = tmp_path / str(number)
        target = root / "out" if is_there or kind == "file" else root / "above" / "out"
        root.mkdir()
        content = target / "file" if kind == "folder" else target
        if is_there:
            content.parent.mkdir(exist_ok=True)
            content.write_text("old", encoding="utf-8")
        was_interrupted = interrupted_at(number, work)
        gc.collect()
        left = sorted(path.name for path in root.iterdir())
        if content.exists():
            assert content.read_text(encoding="utf-8") in ("old", "new")
            assert left == [target.relative_to(root).parts[0]], number
        else:
            assert not is_there and left == [], number
        if not was_interrupted:
            assert content.read_text(encoding="utf-8") == "new" and number > 30
            return
    raise AssertionError("it never ended")
