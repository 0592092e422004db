"""`python -m mlx_smolvlm.convert`: what it prints, and how it refuses without leaving anything behind."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import huggingface_hub
import pytest
from support.command_lines import assert_failed_midway, assert_refused, run
from support.editing import WEIGHTS, change_weights, copied

from mlx_smolvlm.convert import shards

GROUPS = ("-q", "--q-group-size", "32")
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def convert(monkeypatch, capsys, checkpoint):
    """A function from options to the run's result, on a tiny checkpoint; `--hf-path` may be given again."""
    source = checkpoint("smolvlm_256m")
    return lambda *options: run(monkeypatch, capsys, "convert", "--hf-path", source, *options)


def test_it_says_where_and_how_large(convert, tmp_path):
    result = convert("--mlx-path", tmp_path / "new" / "Modell ü")
    assert (result.status, result.err) == (0, "writing 1.6 MB\n")  # the stage, as this is no terminal
    assert result.out == f"{tmp_path / 'new' / 'Modell ü'}: 1.6 MB, 32.00 bits per weight\n"
    assert (tmp_path / "new" / "Modell ü" / WEIGHTS).exists()


def test_a_terminal_gets_a_bar(convert, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    result = convert("--mlx-path", tmp_path / "out")
    assert result.status == 0
    assert "writing 1.6 MB:   0%|" in result.err
    assert "\n" not in result.err  # it goes when it is done


def test_it_names_what_is_not_quantized(convert, checkpoint, tmp_path):
    result = convert("--hf-path", checkpoint("smolvlm2_2b"), "--mlx-path", tmp_path / "out", "-q")
    assert result.out.splitlines()[1:] == [
        "embeddings: 2 layers: 4 bits in groups of 64",
        "decoder: 12 layers: 4 bits in groups of 64",
        "decoder: 2 layers: not quantized, its width 96 is no multiple of the group size 64",
        "connector: connector.modality_projection.proj: not quantized, its part was not asked for",
        "vision: 13 layers: not quantized, its part was not asked for",
    ]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("-q",), "is no multiple of the group size 64); --q-group-size 32 would fit, or --allow-unquantized"),
        ((*GROUPS, "--q-vision", "8"), "nothing of vision would be quantized (10 layers: its width 48 is no"),
        ((*GROUPS, "--skip", "*"), "layers: skipped by *); choose other options"),
        ((*GROUPS, "--skip", "*", "--q-vision", "none"), "layers: skipped by *); choose"),
    ],
)
def test_a_quantization_that_fits_nothing_is_refused_and_says_why(convert, checkpoint, tmp_path, options, problem):
    source = checkpoint("smolvlm2_2b" if "vision" in problem else "tied")
    assert_refused(convert("--hf-path", source, "--mlx-path", tmp_path / "out", *options), problem)
    assert os.listdir(tmp_path) == []
    result = convert("--hf-path", source, "--mlx-path", tmp_path / "out", *options, "--allow-unquantized")
    assert result.status == 0
    assert "layers: not quantized, " in result.out


def test_a_decoder_that_is_skipped_on_purpose_may_stay(convert, tmp_path):
    options = ("-q", "--q-group-size", "32", "--q-connector", "8", "--skip", "language_model.*")
    result = convert("--mlx-path", tmp_path / "out", *options)
    assert result.status == 0
    assert "connector: connector.modality_projection.proj: 8 bits" in result.out


def test_quantizing_again_says_what_it_cannot_give(convert, checkpoint, tmp_path):
    four = tmp_path / "four"
    assert "note:" not in convert("--mlx-path", four, *GROUPS).err
    result = convert("--hf-path", four, "--mlx-path", tmp_path / "eight", *GROUPS, "--q-bits", "8")
    assert "layers from 4 to 8 bits: that makes the files larger and regains nothing of what was rounded" in result.err
    result = convert("--hf-path", four, "--mlx-path", tmp_path / "plain", "-d")
    assert "layers from 4 bits to full precision: that makes the files larger and regains nothing" in result.err
    result = convert("--hf-path", four, "--mlx-path", tmp_path / "two", *GROUPS, "--q-bits", "2")
    assert "layers had been quantized before, and the errors of both times add up" in result.err
    assert "note:" not in convert("--hf-path", four, "--mlx-path", tmp_path / "copy").err


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--allow-unquantized",), "add -q"),
        (("--mlx-path",), "expected one argument"),
        (("--quant",), "unrecognized arguments"),  # no abbreviations
        (("--q-bits", "4"), "add -q"),
        (("--q-bits", "0"), "add -q"),
        (("--q-group-size", "64"), "add -q"),
        (("--q-mode", "mxfp4"), "add -q"),
        (("-q", "--q-bits", "0"), "q-bits is 0"),  # used to be taken for the default
        (("-q", "--q-bits", "7"), "q-bits is 7"),
        (("-q", "--q-bits", "-4"), "q-bits is -4"),
        (("-q", "--q-bits", "nan"), "invalid int value"),
        (("-q", "--q-group-size", "0"), "q-group-size is 0"),
        (("-q", "--q-group-size", "48"), "q-group-size is 48"),
        (("-q", "--q-mode", "q4_0"), "invalid choice"),
        (("-q", "--q-mode", "mxfp4", "--q-bits", "8"), "q-bits is 8"),
        (("-q", "--q-mode", "nvfp4", "--q-group-size", "32"), "q-group-size is 32"),
        (("--dtype", "int8"), "invalid choice"),
        (("--hf-path", "no such folder"), "no folder"),
        (("--hf-path", ""), "is empty"),
        (("--hf-path", __file__), "is a file"),
        (("--hf-path", "."), "no config.json"),
    ],
)
def test_faulty_options_are_refused(convert, tmp_path, monkeypatch, options, problem):
    monkeypatch.chdir(tmp_path)
    assert_refused(convert("--mlx-path", "out", *options), problem)
    assert os.listdir(tmp_path) == []


def test_a_source_is_asked_for(monkeypatch, capsys):
    assert_refused(run(monkeypatch, capsys, "convert"), "--hf-path")


def test_a_target_that_exists_is_kept(convert, tmp_path):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    assert_refused(convert("--mlx-path", tmp_path), "exists already")
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_the_source_is_never_its_own_target(convert, checkpoint, tmp_path):
    source = copied(checkpoint("smolvlm_256m"), tmp_path / "source")
    before = {file.name: file.read_bytes() for file in source.iterdir()}
    assert_refused(convert("--hf-path", source, "--mlx-path", source), "is the source itself")
    assert {file.name: file.read_bytes() for file in source.iterdir()} == before


def test_a_file_as_the_targets_parent_is_refused(convert, tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    assert_refused(convert("--mlx-path", tmp_path / "file" / "out"), str(tmp_path / "file"))


def test_a_parent_that_may_not_be_written_is_refused(convert, tmp_path, monkeypatch):
    def denied(prefix, dir):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(tempfile, "mkdtemp", denied)  # the superuser may write anywhere
    assert_refused(convert("--mlx-path", tmp_path / "out"), f"Permission denied: {tmp_path}")


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("[save] failed"), MemoryError(), ValueError("x\ny")]
)
def test_a_failure_midway_is_one_line_and_leaves_nothing(convert, tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(shards, "_write", fail)
    assert_failed_midway(convert("--mlx-path", tmp_path / "out"), "")
    assert os.listdir(tmp_path) == []


def test_weights_that_do_not_fit_leave_nothing(convert, checkpoint, tmp_path):
    source = copied(checkpoint("smolvlm_256m"), tmp_path / "source")
    change_weights(source, lambda weights: weights.pop("lm_head.weight"))
    assert_refused(
        convert("--hf-path", source, "--mlx-path", tmp_path / "out"), "missing language_model.lm_head.weight"
    )
    assert os.listdir(tmp_path) == ["source"]


def test_an_upload_that_fails_keeps_the_folder(convert, tmp_path, monkeypatch):
    class Api:
        def create_repo(self, *_, **__):
            raise OSError

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    result = convert("--mlx-path", tmp_path / "out", "--upload-repo", "owner/name")
    assert result.status == 2
    problem = f"could not upload to owner/name (OSError); the folder {tmp_path / 'out'} is whole"
    assert_failed_midway(result._replace(out=""), problem)
    assert (tmp_path / "out" / WEIGHTS).exists()


def test_a_real_process_converts(checkpoint, tmp_path):
    options = ["--hf-path", checkpoint("tied"), "--mlx-path", tmp_path / "out", "-q", "--q-group-size", "32"]
    command = [sys.executable, "-m", "mlx_smolvlm.convert", *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == "writing 0.7 MB\n"
    assert "decoder: 21 layers: 4 bits in groups of 32" in done.stdout
    assert (tmp_path / "out" / WEIGHTS).exists()
