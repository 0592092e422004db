"""Writing whole or not at all: what is there after a good end, an error, a killed process, and on odd targets."""

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_smolvlm import files
from mlx_smolvlm.api.session_file import check_session_target
from mlx_smolvlm.benchmark.report import check_report_target
from mlx_smolvlm.command_line.drawings import check_drawing, write_drawing
from mlx_smolvlm.files import whole_file, whole_folder, write_json

ROOT = Path(__file__).parent.parent


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path):
    target = tmp_path / "out.json"
    with whole_file(target) as path:
        assert (path.name, path.exists()) == ("out.json", False)
        write_json(path, {"a": "é\udcff"})  # a file's name may have bytes that are not UTF-8
        assert not target.exists()
    assert json.loads(target.read_text(encoding="utf-8")) == {"a": "é\udcff"}
    assert names(tmp_path) == ["out.json"]


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path):
    for name in ("é" * 126, "é" * 125 + "e"):
        with whole_file(tmp_path / name) as path:
            path.touch()
    with whole_folder(tmp_path / ("é" * 127)) as folder:
        (folder / "file").touch()
    assert sorted(map(len, names(tmp_path))) == [126, 126, 127]


def test_an_error_leaves_the_old_file(tmp_path):
    target = tmp_path / "out"
    target.write_text("old", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt), whole_file(target) as path:
        path.write_text("new", encoding="utf-8")
        raise KeyboardInterrupt
    assert target.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["out"]


def test_permissions_are_those_of_any_new_file_or_of_the_old_one(tmp_path):
    def mode(path):
        return stat.S_IMODE(path.stat().st_mode)

    (tmp_path / "plain").touch()
    for _ in range(2):
        with whole_file(tmp_path / "out") as path:
            path.touch()
    assert mode(tmp_path / "out") == mode(tmp_path / "plain")
    (tmp_path / "out").chmod(0o600)
    with whole_file(tmp_path / "out") as path:
        path.touch()
    assert mode(tmp_path / "out") == 0o600


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "file")
    for text in ("one", "two"):
        with whole_file(tmp_path / "link") as path:
            path.write_text(text, encoding="utf-8")
        assert (tmp_path / "elsewhere" / "file").read_text(encoding="utf-8") == text
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (".", IsADirectoryError, "is a folder; name a file"),
        ("no/such/file", FileNotFoundError, "no folder no/such to write file in"),
        ("pipe", FileExistsError, "pipe is a device or a pipe"),
    ],
)
def test_what_cannot_be_replaced_is_refused(tmp_path, monkeypatch, target, error, message):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with pytest.raises(error, match=message), whole_file(Path(target)):
        raise AssertionError("went on")


def test_a_folder_appears_when_it_is_whole_and_folders_above_it_only_then(tmp_path):
    target = tmp_path / "a" / "b" / "out"
    with pytest.raises(ValueError, match="no"), whole_folder(target) as folder:
        raise ValueError("no")
    assert names(tmp_path) == []
    with whole_folder(target) as folder:
        (folder / "file").touch()
        assert not target.exists()
    assert names(target.parent) == ["out"]
    assert names(target) == ["file"]
    with pytest.raises(FileExistsError, match="exists already"), whole_folder(target):
        raise AssertionError("went on")


@pytest.mark.parametrize("kind", ["whole_file", "whole_folder"])
def test_the_next_writer_removes_what_a_killed_one_left(tmp_path, kind):
    target = tmp_path / "out"
    code = (
        f"import os, sys; from pathlib import Path; from mlx_smolvlm.files import {kind}\n"
        f"with {kind}(Path(sys.argv[1])):\n    os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, target], cwd=ROOT, check=False, timeout=60)
    assert killed.returncode == -9
    assert len(names(tmp_path)) == 1
    with getattr(files, kind)(target) as path:
        if kind == "whole_file":
            path.touch()
    assert names(tmp_path) == ["out"]


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    target = tmp_path / "out"
    with whole_file(target) as first:
        first.write_text("first", encoding="utf-8")
        with whole_file(target) as second:
            second.write_text("second", encoding="utf-8")
        assert target.read_text(encoding="utf-8") == "second"
    assert target.read_text(encoding="utf-8") == "first"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_drawing_replaces_drawings_alone(tmp_path, ending):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    target = tmp_path / f"plot.{ending}"
    for _ in range(2):
        write_drawing(figure, target)
    figure.savefig(target)  # as another program does
    before = target.read_bytes()
    for write in (check_drawing, lambda path: write_drawing(figure, path)):
        with pytest.raises(FileExistsError, match="exists already and is no drawing of this program"):
            write(target)
    assert target.read_bytes() == before
    assert names(tmp_path) == [target.name]


def test_a_pipe_is_not_waited_for(tmp_path):
    """Whether it is one of ours was asked of its content."""
    os.mkfifo(tmp_path / "pipe")
    for check in (check_drawing, check_session_target, check_report_target):
        with pytest.raises(FileExistsError, match="pipe exists already and is no"):
            check(tmp_path / "pipe")


@pytest.mark.parametrize("make", [whole_file, whole_folder])
def test_a_full_disk_is_told_with_the_name_of_the_target(tmp_path, make):
    with pytest.raises(OSError, match=r"No space left on device: '.*/out'"), make(tmp_path / "out"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert names(tmp_path) == []


def test_a_file_that_appears_while_another_is_written_is_not_replaced(tmp_path):
    target = tmp_path / "out"

    def refuse(path):
        if path.exists():
            raise FileExistsError(path)

    with pytest.raises(FileExistsError), whole_file(target, refuse) as path:
        path.write_text("new")
        target.write_text("a user's")
    assert target.read_text() == "a user's"
