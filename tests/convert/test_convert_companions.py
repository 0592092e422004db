"""What `convert` copies beside the weights: known files that are really in the source, and nothing else."""

import os
import shutil

import pytest
from support.command_lines import assert_refused, run
from support.editing import copied

from mlx_smolvlm import load
from mlx_smolvlm.convert import convert_checkpoint, save


@pytest.fixture
def source(checkpoint, tmp_path):
    return copied(checkpoint("smolvlm_256m"), tmp_path / "source")


def convert(monkeypatch, capsys, source, target):
    return run(monkeypatch, capsys, "convert", "--hf-path", source, "--mlx-path", target)


def test_only_known_files_are_copied(source, tmp_path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret", encoding="utf-8")
    for name in (".env.json", "token.txt", "credentials.json", "notes.jinja", "LICENSE.secret", "adapter.txt"):
        (source / name).write_text("secret", encoding="utf-8")
    (source / "passwd.json").symlink_to("/etc/passwd")
    (source / "environ.txt").symlink_to("/proc/self/environ")
    (source / "LICENSE").write_text("MIT", encoding="utf-8")
    convert_checkpoint(source, tmp_path / "out")
    allowed = {"config.json", "README.md", "quantization_report.json", "model.safetensors", *save._COPIED}
    assert set(os.listdir(tmp_path / "out")) <= allowed
    assert (tmp_path / "out" / "LICENSE").read_text(encoding="utf-8") == "MIT"
    assert not any("secret" in path.read_text(errors="replace") for path in (tmp_path / "out").iterdir())
    load(tmp_path / "out")


def test_what_is_not_copied_is_counted_and_named(monkeypatch, capsys, source, tmp_path) -> None:
    assert "not copied" not in convert(monkeypatch, capsys, source, tmp_path / "whole").err
    (source / "modeling.py").write_text("", encoding="utf-8")
    (source / ".gitattributes").write_text("", encoding="utf-8")
    note = "note: 1 file of the source not copied: modeling.py; copy by hand what you need of it\n"
    assert note in convert(monkeypatch, capsys, source, tmp_path / "one").err
    (source / "onnx").mkdir()
    for number in range(5):
        (source / f"train\n{number}.bin").write_text("", encoding="utf-8")
    note = "note: 7 files or folders of the source not copied: modeling.py, onnx/, train\\n0.bin, train\\n1.bin, "
    assert f"{note}train\\n2.bin, 2 others; " in convert(monkeypatch, capsys, source, tmp_path / "seven").err


LINKS = {
    "elsewhere": lambda place: place.symlink_to("/etc/passwd"),
    "process": lambda place: place.symlink_to("/proc/self/environ"),
    "above": lambda place: place.symlink_to("../secret"),
    "broken": lambda place: place.symlink_to("/no/such/file"),
    "itself": lambda place: place.symlink_to(place),
    "pipe": os.mkfifo,
    "folder": os.mkdir,
}


@pytest.mark.parametrize("kind", LINKS)
def test_what_is_elsewhere_or_no_file_is_refused_by_name(monkeypatch, capsys, source, tmp_path, kind) -> None:
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    LINKS[kind](source / "LICENSE")
    before = set(os.listdir(tmp_path))
    assert_refused(convert(monkeypatch, capsys, source, tmp_path / "out"), "LICENSE is")
    assert set(os.listdir(tmp_path)) == before


def test_a_link_within_the_folder_is_copied_as_a_file(source, tmp_path) -> None:
    (source / "terms").write_text("MIT", encoding="utf-8")
    (source / "LICENSE").symlink_to("terms")
    convert_checkpoint(source, tmp_path / "out")
    assert (tmp_path / "out" / "LICENSE").read_text(encoding="utf-8") == "MIT"
    assert not (tmp_path / "out" / "LICENSE").is_symlink()


def test_a_snapshot_of_the_hubs_cache_is_copied_from_its_blobs(source, tmp_path) -> None:
    repository = tmp_path / "models--owner--name"
    snapshot = repository / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    shutil.move(source, repository / "blobs")
    for blob in (repository / "blobs").iterdir():
        (snapshot / blob.name).symlink_to(f"../../blobs/{blob.name}")
    convert_checkpoint(snapshot, tmp_path / "out")
    load(tmp_path / "out")


def test_a_large_file_is_refused_and_files_count_for_the_room(monkeypatch, capsys, source, tmp_path) -> None:
    with (source / "merges.txt").open("wb") as file:
        file.truncate(30 * 10**9)
    problem = f"merges.txt has 30000000000 bytes, the limit for this file is {save.MAX_COMPANION_BYTES}"
    assert_refused(convert(monkeypatch, capsys, source, tmp_path / "out"), problem)
    with (source / "merges.txt").open("wb") as file:
        file.truncate(60 * 10**6)
    usage = type("Usage", (), {"free": 100 * 10**6})
    monkeypatch.setattr(save.shutil, "disk_usage", lambda folder: usage)
    assert_refused(convert(monkeypatch, capsys, source, tmp_path / "out"), "0.10 GB free, but 0.13 GB are needed")


def test_a_name_that_is_not_utf_8_is_refused_on_both_sides(monkeypatch, capsys, source, tmp_path) -> None:
    """Such a folder could be written but not loaded again."""
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/out\xff")
    assert_refused(convert(monkeypatch, capsys, source, odd), "is not UTF-8; give the folder another name")
    os.rename(source, odd)
    assert_refused(convert(monkeypatch, capsys, odd, tmp_path / "out"), "is not UTF-8; give the folder another name")
    assert os.listdir(os.fsencode(tmp_path)) == [b"out\xff"]
