"""What terminals show while nothing is printed, notes that come once, and Ctrl-C within long computations."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.media import picture
from support.patience import until

from mlx_smolvlm import GenerationOptions, load, stream_generate
from mlx_smolvlm.command_line import notes, signals, waiting
from mlx_smolvlm.command_line.notes import SLOW_NOTE, are_products_slow, show_speed_note, with_short_steps
from mlx_smolvlm.command_line.signals import LIMIT_S, if_held_up
from mlx_smolvlm.command_line.waiting import CLEAR, Waiting
from mlx_smolvlm.media.reporting import report, reported_to

ROOT = Path(__file__).parent.parent.parent


class Screen(io.StringIO):
    def isatty(self):
        return True


def shown_on(monkeypatch):
    """A terminal for stderr; not by a fixture, since pytest puts its own stderr in place before the test."""
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


def test_waiting_shows_what_goes_on_within_half_a_second_and_clears_the_line(monkeypatch):
    screen = shown_on(monkeypatch)
    with Waiting() as wait:
        wait.tell("loading the model")
        until(lambda: f"{CLEAR}| loading the model (" in screen.getvalue())
        report("reading image", 3, 17)
        until(lambda: " reading image 3 of 17 (" in screen.getvalue())
        wait.stop()
    shown = screen.getvalue()
    assert waiting.FIRST_S < 0.5
    assert shown.endswith(CLEAR)


def test_what_is_quick_shows_nothing(monkeypatch):
    screen = shown_on(monkeypatch)
    with Waiting() as wait:
        wait.tell("loading the model")
    assert screen.getvalue() == ""


@pytest.mark.parametrize("wanted", [True, False])
def test_neither_files_nor_the_quiet_get_a_line(monkeypatch, wanted):
    output = io.StringIO() if wanted else Screen()
    monkeypatch.setattr(sys, "stderr", output)
    monkeypatch.setattr(waiting, "FIRST_S", 0.0)
    with Waiting(wanted) as wait:
        wait.tell("loading the model")
        report("reading the prompt")
        time.sleep(0.05)
    assert output.getvalue() == ""


def test_a_terminal_that_cannot_go_back_gets_no_line(monkeypatch):
    screen = shown_on(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(waiting, "FIRST_S", 0.0)
    with Waiting() as wait:
        wait.tell("loading the model")
        assert wait._thread is None
    assert screen.getvalue() == ""


def test_loading_and_reading_tell_how_far_they_are(pair, checkpoint):
    told = []
    with reported_to(lambda *what: told.append(what)):
        load(checkpoint("smolvlm_256m"))
        images = [picture("landscape"), picture("landscape")]
        next(stream_generate(*pair, "hi", images=images, do_image_splitting=False))
    assert [what for number, what in enumerate(told) if what not in told[:number]] == [
        ("loading the model", 0, 0),
        ("opening image", 1, 2),
        ("opening image", 2, 2),
        ("reading image", 1, 2),
        ("reading image", 2, 2),
        ("reading the prompt", 0, 0),
    ]


def test_slow_products_are_noted_once(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "linux")
    maps = tmp_path / "maps"
    fast = "7f00-7f01 r-xp 0 08:01 5 /usr/lib/x86_64-linux-gnu/openblas-pthread/libopenblasp-r0.3.21.so\n"
    numpys = "7f00-7f01 r-xp 0 08:01 5 /venv/site-packages/numpy.libs/libscipy_openblas64_-32a4b2a6.so\n"
    maps.write_text(fast + numpys)
    monkeypatch.setattr(notes, "_MAPS", maps)
    show_speed_note()
    assert not are_products_slow(tmp_path / "absent")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(notes.sys, "platform", "darwin")
    maps.write_text(numpys)
    show_speed_note()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(notes.sys, "platform", "linux")
    show_speed_note()
    show_speed_note()
    assert capsys.readouterr().err == f"{SLOW_NOTE}\n"
    assert with_short_steps(GenerationOptions()).prefill_chunk == 32
    assert with_short_steps(GenerationOptions(prefill_chunk=8)).prefill_chunk == 8
    maps.write_text(fast)
    assert with_short_steps(GenerationOptions()).prefill_chunk == 512


def test_ctrl_c_is_noticed_while_the_main_thread_is_held_up():
    acted = []
    handler = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        with if_held_up(lambda: acted.append(time.monotonic())):
            start = time.monotonic()
            signal.raise_signal(signal.SIGINT)
            until(lambda: acted)
        with if_held_up(lambda: acted.append(0)):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert len(acted) == 1
    assert acted[0] - start >= LIMIT_S


def test_ctrl_c_twice_ends_a_chat_that_is_held_up(capsys):
    ended = []
    stopping = signals.Stopping("stopping soon", again=lambda: ended.append(1))
    stopping.noticed()
    assert "(stopping soon)" in capsys.readouterr().err
    assert ended == []
    stopping.noticed()
    assert ended == [1]


def test_ctrl_c_ends_a_command_that_computes_for_long(tmp_path):
    """As MLX does on a slow machine: without Python's lock, and without an end."""
    code = """
import ctypes, sys
from mlx_smolvlm.command_line.runner import refuse_tracebacks
from mlx_smolvlm.command_line.signals import end_at_once, if_held_up
with refuse_tracebacks(), if_held_up(end_at_once):
    print("computing", flush=True)
    while True:
        ctypes.CDLL(None).sleep(1)
        ctypes.CDLL(None).poll(None, 0, 60000)
"""
    # A handler that does nothing stands for a main thread that is held up: C calls that restart.
    code = code.replace(
        "import ctypes, sys", "import ctypes, signal, sys\nsignal.signal(signal.SIGINT, lambda *_: None)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"computing\n"
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(20) == 130  # it has no end of its own
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
