"""The batch command killed at any moment, and shared by several processes under `mlx.launch`.

By default it is killed once, and two processes of a ring share a list; the README's commands use the launcher.
"""

import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from mlx_smolvlm.batch.results import ResultsFile

ROOT = Path(__file__).parent.parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
TIMEOUT_S = 120


def make_pictures(folder: Path, number: int, num_broken: int) -> Path:
    """Coloured shapes, some of them cut short."""
    folder.mkdir()
    draw = random.Random(0)
    broken = set(draw.sample(range(number), num_broken))
    for index in range(number):
        image = Image.new("RGB", (96, 96), "white")
        x, y, size = (draw.randrange(*bounds) for bounds in ((20, 76), (20, 76), (8, 18)))
        shape = draw.choice([ImageDraw.Draw(image).ellipse, ImageDraw.Draw(image).rectangle])
        shape((x - size, y - size, x + size, y + size), fill=draw.choice(["red", "green", "blue", "orange"]))
        path = folder / f"{index:04d}.png"
        image.save(path)
        if index in broken:
            path.write_bytes(path.read_bytes()[: draw.randrange(200)])
    return folder


def command(folder: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "mlx_smolvlm.batch", str(folder), "--out", str(out)]


def run(folder: Path, out: Path) -> str:
    done = subprocess.run(command(folder, out), env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert done.returncode in (0, 1), done.stderr  # 1: some are broken
    return done.stderr


def answers(out: Path) -> dict[str, tuple]:
    """What each picture got; a picture has one line."""
    with ResultsFile(out) as file:
        records = list(map(asdict, file.lines()))
    found = {Path(r["path"]).name: (r["text"], r["error"], r["completion_tokens"]) for r in records}
    assert len(found) == len(records)
    return found


def num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_lines(path: Path, number: int, process: subprocess.Popen) -> None:
    for _ in range(TIMEOUT_S * 100):
        if num_lines(path) >= number or process.poll() is not None:
            return
        time.sleep(0.01)
    raise AssertionError(f"no {number} lines in {path}")


def check_nothing_is_lost(tmp_path: Path, number: int, num_broken: int, kills: int, suffix: str = "jsonl") -> None:
    folder, out = make_pictures(tmp_path / "pictures", number, num_broken), tmp_path / f"out.{suffix}"
    draw = random.Random(1)
    for _ in range(kills):
        before = num_lines(out)
        process = subprocess.Popen(command(folder, out), env=ENVIRONMENT, stderr=subprocess.DEVNULL)
        wait_for_lines(out, before + draw.randrange(1, max(2, number // kills)), process)
        time.sleep(draw.random() / 20)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert num_lines(out) > kills
    run(folder, out)
    found = answers(out)
    assert sorted(found) == sorted(path.name for path in folder.iterdir())
    assert sum(error is not None for _, error, _ in found.values()) == num_broken
    assert all((text is None) == (error is not None) for text, error, _ in found.values())
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [out.name]


@pytest.mark.parametrize("suffix", ["jsonl", *(pytest.param(name, marks=pytest.mark.slow) for name in ("csv", "json"))])
def test_a_killed_run_loses_nothing(tmp_path, suffix):
    check_nothing_is_lost(tmp_path, number=20, num_broken=2, kills=1, suffix=suffix)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "json"])
def test_a_run_that_is_killed_ten_times_loses_nothing(tmp_path, suffix):
    check_nothing_is_lost(tmp_path, number=1000, num_broken=20, kills=10, suffix=suffix)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of another process from /proc")
def test_memory_does_not_grow_with_the_list(tmp_path):
    folder, out = make_pictures(tmp_path / "pictures", 1000, 20), tmp_path / "out.jsonl"
    held = []
    process = subprocess.Popen(command(folder, out), env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        if num_lines(out) > 100 and "VmRSS" in status:
            held.append(int(status.partition("VmRSS:")[2].split()[0]) / 1024)
        time.sleep(0.2)
    quarter = len(held) // 4
    assert quarter > 5
    early, late = statistics.median(held[:quarter]), statistics.median(held[-quarter:])
    print(f"MiB held: {early:.0f} in the first quarter, {late:.0f} in the last, {max(held):.0f} at most")
    assert late < 1.15 * early  # holes of the allocator come and go


def launched(size: int, folder: Path, out: Path) -> subprocess.Popen:
    launcher = shutil.which("mlx.launch", path=str(Path(sys.executable).parent))
    assert launcher
    with socket.socket() as probe:  # a range that is hardly in use: the launcher counts on from its first port
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["-n", str(size), "--backend", "ring", "--starting-port", str(min(port, 60_000))]
    return subprocess.Popen(
        [launcher, *options, "--", *command(folder, out)],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process: subprocess.Popen) -> str:
    return process.communicate(timeout=TIMEOUT_S)[0]


@pytest.fixture
def ring(tmp_path):
    """A function that starts the processes of a ring without a launcher, which would end all when one dies."""
    processes = []

    def start(*commands: list[str]) -> list[subprocess.Popen]:
        sockets = [socket.socket() for _ in commands]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        hosts = tmp_path / "hosts.json"
        hosts.write_text(json.dumps([[f"127.0.0.1:{one.getsockname()[1]}"] for one in sockets]))
        for one in sockets:
            one.close()
        for rank, words in enumerate(commands):
            environment = {**ENVIRONMENT, "MLX_RANK": str(rank), "MLX_HOSTFILE": str(hosts)}
            processes.append(subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True))
        return processes

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_several_processes_share_a_list(tmp_path):
    folder, out = make_pictures(tmp_path / "pictures", 12, 2), tmp_path / "out.jsonl"
    run(folder, tmp_path / "alone.jsonl")
    printed = finished(launched(2, folder, out))
    assert printed.count("12 images: 10 answered, 2 with errors") == 1
    assert answers(out) == answers(tmp_path / "alone.jsonl")
    assert not list(tmp_path.glob("*rank*"))


def assert_ended_with(process: subprocess.Popen, problem: str) -> None:
    printed = process.communicate(timeout=TIMEOUT_S)[1]
    assert process.returncode == 2
    (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert problem in line
    assert "run the same command again" in line
    assert "Traceback" not in printed


@pytest.mark.slow
def test_a_process_that_dies_holds_up_no_other(tmp_path, ring):
    """On one disk, the first one takes over what there is, and says how to go on."""
    folder, out = make_pictures(tmp_path / "pictures", 40, 2), tmp_path / "out.jsonl"
    first, second = ring(command(folder, out), command(folder, out))
    wait_for_lines(tmp_path / "out.jsonl.rank1", 1, second)
    second.kill()
    assert_ended_with(first, "another process has ended before its images were done")
    kept = len(answers(out))
    assert 20 < kept < 40
    assert not list(tmp_path.glob("*rank*"))
    assert f"{kept} of them done before" in run(folder, out)
    assert len(answers(out)) == 40


@pytest.mark.slow
def test_machines_without_a_common_disk_exchange_their_lines(tmp_path, ring):
    folder = make_pictures(tmp_path / "pictures", 9, 1)
    outs = [tmp_path / name / "out.jsonl" for name in ("one", "other")]
    for out in outs:
        out.parent.mkdir()
    for process, status in zip(ring(*(command(folder, out) for out in outs)), (1, 0), strict=True):
        process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == status  # the first tells that one is broken
    assert len(answers(outs[0])) == 9
    assert not list(outs[1].parent.iterdir())


@pytest.mark.slow
def test_a_machine_that_is_gone_is_not_waited_for_without_end(tmp_path, ring):
    """MLX may notice that, or wait for ever."""
    folder = make_pictures(tmp_path / "pictures", 24, 1)
    outs = [tmp_path / name / "out.jsonl" for name in ("one", "other")]
    impatient = "from mlx_smolvlm.batch import __main__, job, ranks; job.PATIENCE_S = 1; __main__.main()"
    commands = []
    for out in outs:
        out.parent.mkdir()
        commands.append([sys.executable, "-c", impatient, *command(folder, out)[3:]])
    first, second = ring(*commands)
    wait_for_lines(outs[1].with_name("out.jsonl.rank1"), 1, second)
    second.kill()
    assert_ended_with(first, "another process has ended (")
    assert len(answers(outs[0])) == 12


@pytest.mark.slow
def test_processes_that_differ_in_what_they_are_to_do_say_so(tmp_path, ring):
    folder, out = make_pictures(tmp_path / "pictures", 3, 0), tmp_path / "out.jsonl"
    for process in ring(command(folder, out), [*command(folder, out), "--limit", "2"]):
        printed = process.communicate(timeout=TIMEOUT_S)[1]
        assert process.returncode == 2
        assert "the processes have different numbers of images (" in printed
    assert not list(tmp_path.glob("out*"))


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 3])
def test_two_hundred_pictures_one_process_killed_midway(tmp_path, ring, size):
    folder, out = make_pictures(tmp_path / "pictures", 200, 5), tmp_path / "out.jsonl"
    run(folder, tmp_path / "alone.jsonl")
    first, second = ring(command(folder, out), command(folder, out))
    wait_for_lines(tmp_path / "out.jsonl.rank1", 40, second)
    for process in (first, second):  # as the launcher does when one dies
        process.kill()
        process.wait()
    assert 40 < num_lines(out) + num_lines(tmp_path / "out.jsonl.rank1") < 200
    finished(launched(size, folder, out))
    assert answers(out) == answers(tmp_path / "alone.jsonl")
    assert not list(tmp_path.glob("*rank*"))
