"""`train` killed at any moment, stopped by Ctrl-C, and shared by two processes of `mlx.launch`."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import pytest
from support.training import write_rows

ROOT = Path(__file__).parent.parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
TIMEOUT_S = 300


@pytest.fixture
def command(checkpoint, tmp_path):
    """A function from an output's name to a command."""
    rows = write_rows(tmp_path)

    def words(out: str, *options: object) -> list[str]:
        given = ["--model", checkpoint("smolvlm_256m"), "--data", rows, "--adapter-out", tmp_path / out, "--no-split"]
        plain = ["--rank", 2, "--learning-rate", 0.01, "--dropout", 0.2, "--save-every", 2]
        return [sys.executable, "-m", "mlx_smolvlm.train", *map(str, (*given, *plain, *options))]

    return words


def adapter(folder):
    return (folder / "adapter_model.safetensors").read_bytes()


def finish(words):
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return done.stderr


def until_step(process, metrics, step):
    """Wait until a run has done so many steps."""
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end and process.poll() is None:
        if metrics.is_file() and len(metrics.read_text().splitlines()) >= step:
            return
        time.sleep(0.01)
    raise AssertionError(process.communicate())


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_run_that_a_signal_ends_goes_on(command, tmp_path, number):
    options = ("--steps", 400, "--batch-size", 1)
    process = subprocess.Popen(command("out", *options), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "out.training" / "metrics.jsonl"
    until_step(process, metrics, 4)
    process.send_signal(number)
    _, said = process.communicate(timeout=TIMEOUT_S)
    assert not (tmp_path / "out").exists()
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "run the same command with --resume to go on" in said
    done = len(metrics.read_text().splitlines())
    again = subprocess.Popen(command("out", *options, "--resume"), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    until_step(again, metrics, done + 3)
    again.kill()
    assert "from step" in again.communicate()[1]


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_with_the_same_bytes(command, tmp_path):
    options = ("--steps", 30, "--batch-size", 2, "--schedule", "cosine", "--warmup", 3)
    finish(command("whole", *options))
    draw = random.Random(1)
    for number in range(20):
        out, resume = tmp_path / f"out{number}", ()
        for _ in range(4):
            process = subprocess.Popen(command(out.name, *options, *resume), env=ENVIRONMENT, stderr=subprocess.DEVNULL)
            time.sleep(draw.uniform(0.2, 4))
            process.kill()
            process.wait()
            resume = ("--resume",)
        finish(command(out.name, *options, "--resume"))
        assert adapter(out) == adapter(tmp_path / "whole")
        assert not out.with_name(f"{out.name}.training").exists()


@pytest.mark.slow
def test_two_processes_train_as_one_with_double_batches(command, tmp_path):
    finish(command("one", "--steps", 4, "--batch-size", 4))
    with socket.socket() as first, socket.socket() as second:
        hosts = []
        for found in (first, second):
            found.bind(("127.0.0.1", 0))
            hosts.append([f"127.0.0.1:{found.getsockname()[1]}"])
    (tmp_path / "hosts.json").write_text(json.dumps(hosts))
    processes = [
        subprocess.Popen(
            command("two", "--steps", 4, "--batch-size", 2),
            env={**ENVIRONMENT, "MLX_RANK": str(rank), "MLX_HOSTFILE": str(tmp_path / "hosts.json")},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, said = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, said
    found, expected = (mx.load(str(tmp_path / name / "adapter_model.safetensors")) for name in ("two", "one"))
    records = [json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0]) for name in ("two", "one")]
    assert records[0]["loss"] == pytest.approx(records[1]["loss"], rel=1e-6)
    assert records[0]["gradient_norm"] == pytest.approx(records[1]["gradient_norm"], rel=1e-5)
    for name, array in expected.items():
        # AdamW divides by the gradient's own size, which enlarges what sums in another order differ by
        assert mx.abs(found[name] - array).max().item() < 1e-3, name
