"""Decoders in threads that may be left: whatever interrupts them, their pixels are counted once, and given back."""

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image
from support.patience import until

from mlx_smolvlm.media import image_files, leaving, separate_decoding
from mlx_smolvlm.media.images import load_image

from .test_image_limits import encoded, settled

ROOT = Path(__file__).parents[2]


@pytest.fixture
def content(monkeypatch) -> bytes:
    monkeypatch.setattr(image_files, "LONG_PIXELS", 0)
    return encoded("PNG", (16, 16))


@pytest.mark.parametrize("has_begun", [True, False])
def test_pixels_are_given_back_once_where_the_start_of_the_thread_is_interrupted(
    monkeypatch, content: bytes, has_begun: bool
) -> None:
    """They were given back twice: Ctrl-C now and then, and there was no bound any more."""
    start, interrupted = threading.Thread.start, []

    def interrupted_start(thread: threading.Thread) -> None:
        if thread.name != "mlx_smolvlm decoding":
            return start(thread)
        if has_begun:
            start(thread)
        interrupted.append(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted_start)
    with pytest.raises(KeyboardInterrupt):
        load_image(content)
    if has_begun:
        interrupted[0].join(20)
    else:
        interrupted[0].run()  # as if it began only now: it does nothing
    settled()
    assert leaving.BUDGET.used == leaving.BUDGET.num_left == 0


def test_where_no_thread_can_be_started_the_image_is_decoded_all_the_same(monkeypatch, content: bytes) -> None:
    expected = load_image(content)

    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    assert load_image(content) == expected
    assert not leaving.BUDGET.used


FORK = """
import os, threading
from mlx_smolvlm.media import leaving
for _ in range(leaving.MAX_LEFT):
    holder = object()
    leaving.BUDGET.take(holder, 10**8, lambda: None)
    leaving.BUDGET.leave(holder)
leaving.BUDGET._lock.acquire()
process = os.fork()
if process == 0:
    os._exit(leaving.run_leaving(lambda check: 7, 10**6, lambda: None))
print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
"""


def test_a_forked_process_does_not_wait_for_decoders_of_its_parent() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "7\n"


def test_the_error_of_a_decoder_does_not_keep_its_image(monkeypatch, content: bytes) -> None:
    """The list that it came in was kept by its traceback: nothing was released before the garbage collector came."""
    kept = []

    class Kept(ValueError):
        def __del__(self) -> None:
            kept.remove(self.args[0])

    def fails(check: object) -> None:
        kept.append("pixels")
        raise Kept("pixels")

    with pytest.raises(Kept):
        leaving.run_leaving(fails, 1, lambda: None)
    assert not kept


def test_ctrl_c_of_the_terminal_does_not_end_the_process_that_decodes(monkeypatch) -> None:
    """An image of a request that was to be finished came back as damaged."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "JPEG2000")
    monkeypatch.setattr(image_files, "LONG_BYTES", 0)
    groups = []
    popen = subprocess.Popen

    def noted(*arguments: object, **options: object) -> object:
        process = popen(*arguments, **options)
        groups.append(os.getpgid(process.pid))
        return process

    monkeypatch.setattr(separate_decoding.subprocess, "Popen", noted)
    load_image(file.getvalue())
    assert groups and groups[0] != os.getpgid(0)


EXIT = """
import subprocess, sys, threading
from mlx_smolvlm.media import separate_decoding
separate_decoding.SCRIPT = "import time; print('ready', flush=True); time.sleep(60)"
started = threading.Event()
popen = subprocess.Popen
def noted(*arguments, **options):
    process = popen(*arguments, **options)
    print(process.pid, flush=True)
    return process
subprocess.Popen = noted
work = lambda: separate_decoding.decode_separately(b"", (1, 1), started.set)
threading.Thread(target=work, daemon=True).start()
started.wait()
sys.exit(130)
"""


def test_the_process_that_decodes_ends_with_the_one_that_started_it() -> None:
    done = subprocess.run([sys.executable, "-c", EXIT], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 130, done.stderr
    until(lambda: has_ended(int(done.stdout)))


def has_ended(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    status = Path(f"/proc/{process}/status")
    return status.exists() and "\nState:\tZ" in status.read_text()


@pytest.mark.parametrize(
    ("name", "is_python"),
    [("python3.13t", True), ("Python", True), ("pythonw", True), ("Pythonista", False), ("MyApp", False), ("", False)],
)
def test_a_program_that_embeds_python_is_not_started_once_more(monkeypatch, name: str, is_python: bool) -> None:
    monkeypatch.setattr(sys, "executable", f"/Applications/{name}" if name else "")
    assert separate_decoding.can_start_python() is is_python
