"""No screen waits silently: whatever takes long, something stands on the terminal's line within half a second."""

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from support.slow_command import SLEEP_S, TIMES

from mlx_smolvlm import DEMO_MODEL
from mlx_smolvlm.command_line.waiting import CLEAR

ROOT = Path(__file__).parent.parent.parent
LIMIT_S = 0.5
DEMO = DEMO_MODEL.parent
LOADING = "api.loading.load_model"
READING = ("media.images.load_image", "model.smolvlm.SmolVLM.image_features")
SCREENS = {  # what is slow, and the arguments
    "generate": ([LOADING, *READING], ["--image", DEMO / "first.png", "--max-tokens", "4"]),
    "chat": ([LOADING, *READING], ["--max-tokens", "4", "--no-history"]),
    "batch": (["batch.inputs.read_items", LOADING, READING[1]], [DEMO / "first.png", "--out", "results.jsonl"]),
    "watch": ([LOADING, "media.live.source.open_live_source", READING[1]], [DEMO / "clip.mp4", "--max-tokens", "4"]),
    "convert": (
        ["convert.source_checkpoint.open_source", "convert.calibration.calibrate", "convert.compare.compare_models"],
        ["--model", "plain", "--mlx-path", "new", "-q", "--q-group-size", "32", "--calibrate", "--data", "samples"],
    ),
    "benchmark": (
        ["benchmark.__main__._pythons", LOADING],
        ["--model", DEMO_MODEL, "--only", "decode", "--runs", "1", "--new-tokens", "4", "--prompt-tokens", "64"],
    ),
}


@pytest.fixture
def folder(tmp_path, checkpoint):
    """Where the commands run, with what `convert` is given."""
    (tmp_path / "plain").symlink_to(checkpoint("smolvlm_256m"))
    (tmp_path / "samples").mkdir()
    shutil.copy(DEMO / "first.png", tmp_path / "samples")
    (tmp_path / "samples" / "first.txt").write_text("What?", encoding="utf-8")
    return tmp_path


def recorded(command, slow, arguments, folder, typed=b""):
    """What comes on the terminal and when, and when each slow function began."""
    times = folder / "times"
    terminal, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    tests = ROOT / "tests"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tests}", TIMES: str(times), "TERM": "xterm"}
    names = ",".join(f"mlx_smolvlm.{name}" for name in slow)
    words = [sys.executable, "-m", "support.slow_command", command, names, *map(str, arguments)]
    process = subprocess.Popen(
        words, cwd=folder, env=environment, stdin=other, stdout=other, stderr=other, start_new_session=True
    )
    os.close(other)
    shown: list[tuple[float, bytes]] = []
    try:
        until_s = time.monotonic() + 60
        while time.monotonic() < until_s:
            if not select.select([terminal], [], [], 0.05)[0]:
                continue
            try:
                part = os.read(terminal, 10_000)
            except OSError:  # Linux: the other end is closed
                break
            if not part:
                break
            shown.append((time.monotonic(), part))
            if typed and b"> " in part:
                os.write(terminal, typed)
                typed = b""
        status = process.wait(10)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    began = dict(reversed(line.split()) for line in times.read_text(encoding="utf-8").splitlines())
    return status, shown, {name: float(start) for name, start in began.items()}


def line_at(shown, when_s: float) -> str:
    """What stands on the last line of the screen."""
    text = b"".join(part for time_s, part in shown if time_s <= when_s).decode(errors="replace")
    line = text.rpartition("\n")[2].rpartition(CLEAR)[2]
    return re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", line).strip()  # without colours and the like


QUICK = ("chat",)


@pytest.mark.parametrize(
    "command", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SCREENS]
)
def test_a_line_says_what_goes_on(folder, command):
    slow, arguments = SCREENS[command]
    typed = f"/image {DEMO / 'first.png'}\nWhat?\n/quit\n".encode() if command == "chat" else b""
    status, shown, began = recorded(command, slow, arguments, folder, typed)
    everything = b"".join(part for _, part in shown).decode(errors="replace")
    assert status == 0, everything
    assert set(began) == {f"mlx_smolvlm.{name}" for name in slow}, everything
    assert LIMIT_S < SLEEP_S
    for name, start_s in began.items():
        assert line_at(shown, start_s + LIMIT_S), (name, everything)
