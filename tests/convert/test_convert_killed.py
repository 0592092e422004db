"""A conversion that is killed leaves nothing that loads, and the next one succeeds."""

import filecmp
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import pytest
from support.editing import WEIGHTS
from support.large_checkpoint import write_large_checkpoint

from mlx_smolvlm.convert import QuantizationOptions, convert_checkpoint, save

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-m", "mlx_smolvlm.convert"]
# Runs the command line, and kills it at the n-th call of a function.
KILLED_AT = """
import os, signal, sys
from pathlib import Path
from mlx_smolvlm import files
from mlx_smolvlm.convert import __main__, checkpoint, shards
owner = {"shards": shards, "checkpoint": checkpoint, "files": files, "Path": Path}[sys.argv[1]]
name, calls_left = sys.argv[2:4]
original = getattr(owner, name)
def fatal(*arguments, **options):
    global calls_left
    calls_left = int(calls_left) - 1
    if calls_left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **options)
setattr(owner, name, fatal)
sys.argv[1:] = sys.argv[4:]
__main__.main()
"""


def remains(target):
    return [path for path in target.parent.iterdir() if path.name.startswith(f".{target.name}.")]


def kill_at(point, *options):
    command = [sys.executable, "-c", KILLED_AT, *point.split(), *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize(
    "point",
    [
        "shards _write 40",
        *(
            pytest.param(point, marks=pytest.mark.slow)
            for point in ("shards _write 1", "checkpoint write_card 1", "files _flush 2", "Path rename 1")
        ),
    ],
)
def test_nothing_is_left_that_looks_finished(checkpoint, tmp_path, point):
    out = tmp_path / "out"
    source = checkpoint("tied")
    kill_at(point, "--hf-path", source, "--mlx-path", out)
    assert not out.exists()
    assert len(remains(out)) == 1
    convert_checkpoint(source, out)
    convert_checkpoint(source, tmp_path / "undisturbed")
    assert remains(out) == []
    assert (out / WEIGHTS).read_bytes() == (tmp_path / "undisturbed" / WEIGHTS).read_bytes()


def test_a_checkpoint_about_to_be_replaced_is_not_lost(checkpoint, tmp_path):
    """Killed after the old one gave way and before the new one took its place."""
    out = tmp_path / "out"
    source = checkpoint("tied")
    convert_checkpoint(source, out, quantization=QuantizationOptions(8, 32))
    before = (out / WEIGHTS).read_bytes()
    kill_at("Path rename 2", "--hf-path", source, "--mlx-path", out, "--force")
    with pytest.raises(FileExistsError, match="exists already"):
        convert_checkpoint(source, out)
    assert (out / WEIGHTS).read_bytes() == before
    assert remains(out) == []
    convert_checkpoint(source, out, force=True)
    assert len((out / WEIGHTS).read_bytes()) > len(before)


def test_a_checkpoint_whose_place_cannot_be_taken_stays(checkpoint, tmp_path, monkeypatch):
    out = tmp_path / "out"
    convert_checkpoint(checkpoint("tied"), out)
    rename = Path.rename

    def failing(self, to):
        if self.name == "new":
            raise OSError(5, "Input/output error", str(to))
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="Input/output error"):
        convert_checkpoint(checkpoint("tied"), out, force=True)
    assert (out / WEIGHTS).exists()
    assert remains(out) == []


def test_a_run_that_lives_is_left_alone(checkpoint, tmp_path):
    out = tmp_path / "out"
    with save.whole_checkpoint(out, checkpoint("tied"), 0, False) as folder:
        (folder / "file").write_text("x", encoding="utf-8")
        convert_checkpoint(checkpoint("tied"), out)
        assert (folder / "file").exists()
        os.rename(out, tmp_path / "elsewhere")
    assert (out / "file").exists()


def test_of_two_runs_the_first_to_finish_stays(checkpoint, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(FileExistsError), save.whole_checkpoint(out, checkpoint("tied"), 0, False):
        convert_checkpoint(checkpoint("tied"), out)
    assert (out / WEIGHTS).exists()
    assert remains(out) == []


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """4.5 GB of random weights in the geometry of SmolVLM2-2.2B."""
    return write_large_checkpoint("SmolVLM2-2.2B", tmp_path_factory.mktemp("large"))


def plain_loop(source, folder):
    """What `-q` does, without checks and without care."""
    folder.mkdir()
    for file in sorted(source.glob("*.safetensors")):
        weights, out = dict(mx.load(str(file))), {}
        for name in list(weights):
            array = weights.pop(name)
            new = {name: array}
            if name.startswith(("model.text_model.", "lm_head.")) and array.ndim == 2:
                new = dict(zip((name, f"{name}.s", f"{name}.b"), mx.quantize(array, 64, 4), strict=True))
            mx.eval(new)
            out |= new
        mx.save_safetensors(str(folder / file.name), out)


MEASURED = """
import resource, sys
from pathlib import Path
from mlx_smolvlm.convert import __main__
__main__.main()
status = Path("/proc/self/status")
if status.exists():  # Linux counts in ru_maxrss what the parent process had, too
    print(int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_the_largest_geometry_needs_little_memory_and_time(large, tmp_path):
    start = time.perf_counter()
    plain_loop(large, tmp_path / "plain")
    plain_s = time.perf_counter() - start
    command = [sys.executable, "-c", MEASURED, "--hf-path", large, "--mlx-path", tmp_path / "out", "-q"]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    own_s = time.perf_counter() - start
    peak_bytes = int(done.stdout.splitlines()[-1])
    print(f"{peak_bytes / 1e9:.2f} GB, {own_s:.1f} s; plain loop {plain_s:.1f} s")
    assert peak_bytes < 1.5e9
    assert own_s < 2 * plain_s


@pytest.mark.slow
def test_killed_twenty_times_at_random_the_largest_geometry_converts(large, tmp_path):
    out = tmp_path / "out"
    options = ["--hf-path", large, "--mlx-path", out, "-q"]
    undisturbed = tmp_path / "undisturbed"
    subprocess.run([*COMMAND, *options[:3], undisturbed, "-q"], cwd=ROOT, check=True)
    size_bytes = (undisturbed / WEIGHTS).stat().st_size
    moments = random.Random(0)
    for _ in range(20):
        kill_when_written = moments.uniform(0, 1.01) * size_bytes  # sometimes while the system writes to the disk
        of_earlier_runs = remains(out)
        process = subprocess.Popen([*COMMAND, *options], cwd=ROOT, stdout=subprocess.DEVNULL)
        while process.poll() is None and written_bytes(out, of_earlier_runs) < kill_when_written:
            time.sleep(0.01)
        process.kill()
        process.wait()
        assert len(remains(out)) <= 1
        if out.exists():  # it was quicker
            assert filecmp.cmp(out / WEIGHTS, undisturbed / WEIGHTS, shallow=False)
            shutil.rmtree(out)
    subprocess.run([*COMMAND, *options], cwd=ROOT, check=True)
    assert remains(out) == []
    assert filecmp.cmp(out / WEIGHTS, undisturbed / WEIGHTS, shallow=False)


def written_bytes(target, of_earlier_runs):
    """Size of the weights in this run's temporary folder; 0 if there is none, or none any more."""
    try:
        folders = [folder for folder in remains(target) if folder not in of_earlier_runs]
        return sum(file.stat().st_size for folder in folders for file in folder.rglob("*.safetensors"))
    except FileNotFoundError:
        return 0
