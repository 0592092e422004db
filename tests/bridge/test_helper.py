"""The helper process: a wire that nothing else writes to, and a clean end whatever happens."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.bridge import Program, helper, text_of
from support.fake_hub import NAME, fake_hub
from support.layout import PACKAGE, ROOT

PICTURE = str(PACKAGE / "demo" / "picture.png")
QUESTION = "What color is the shape?"
LONG = {"max_tokens": 900, "temperature": 1000, "seed": 3}  # takes seconds: no end comes soon
NOISY = """
import os, warnings, mlx_smolvlm.api.adapter_set as loading
find = loading.find_checkpoint
def noisy(*arguments, **keywords):
    print("printed")
    os.write(1, b"written\\n")
    warnings.warn("a warning of a request")
    return find(*arguments, **keywords)
loading.find_checkpoint = noisy
"""


def begun(program: Program) -> int:
    """A request whose answer has begun."""
    number = program.send("respond", model=1, prompt=QUESTION, options=LONG)
    while program.next_event()["event"] != "token":
        pass
    return number


def test_the_helper_answers_and_nothing_else_reaches_the_wire():
    with helper(f"exec({NOISY!r})") as process:
        program = Program(process)
        assert program.ask("hello", protocol=1)[-1]["protocol"] == 1
        program.ask("load")
        log = program.others
        assert {"event": "log", "id": None, "level": "warning", "message": "a warning of a request"} in log
        assert text_of(program.ask("respond", model=2, prompt=QUESTION, images=[{"path": PICTURE}])) == "Red."
        layout = {"width": 1024, "height": 1, "bytes_per_row": 4096, "format": "rgba"}
        image = {"attachment": 0, **layout}
        kind, message = program.error("respond", bytes(60 * 1024**2), model=2, prompt=QUESTION, images=[image])
        assert kind == "invalid_request" and "has 62914560 bytes, expected 4096" in message  # all 60 MiB came
        process.socket.sendall(b"x" * (1024**2 + 5))
        event = program.next_event()
        assert event["kind"] == "invalid_request" and "longer than 1 MiB" in event["message"]
        assert process.ended(within_s=20) == 65
        assert set(process.process.stderr.read().splitlines()) == {b"printed", b"written"}


def test_a_download_tells_its_bytes_and_draws_no_bars(tmp_path):
    folder = PACKAGE / "demo" / "model"
    with fake_hub(folder) as address:
        settings = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
        with helper(f"import os; os.environ.update({settings})") as process:
            *progress, loaded = Program(process).ask("load", model=NAME)
            assert loaded["event"] == "loaded", loaded
            process.socket.shutdown(socket.SHUT_WR)
            assert process.ended(within_s=5) == 0
            assert process.process.stderr.read() == b""
    bytes_told = [(event["done_bytes"], event["total_bytes"]) for event in progress if event["what"] == "downloading"]
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert bytes_told == sorted(bytes_told) and bytes_told[-1] == (size, size)
    assert all(event["fraction"] is None for event in progress if event["what"] != "downloading")
    assert progress[-1]["what"] == "loading the model"


def test_cancelling_on_the_wire_and_the_end_of_the_input():
    with helper() as process:
        program = Program(process)
        program.ask("load")
        number = begun(program)
        process.submit(json.dumps({"request": "cancel", "id": number}), [])
        began_s = time.monotonic()
        assert program.events(number)[-2]["finish_reason"] == "cancelled"
        assert time.monotonic() - began_s < 10
        process.submit(json.dumps({"request": "frame", "source": 1}), [])
        process.submit(json.dumps({"request": "cancel", "number": 1}), [])
        program.ask("ping")
        assert [event["level"] for event in program.others if event["event"] == "log"] == ["error", "error"]
        begun(program)
        process.process.send_signal(signal.SIGINT)  # is for the program
        program.next_event()
        process.socket.shutdown(1)
        assert process.ended(within_s=20) == 0  # 0.5 s and what the machine is busy with


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="looks into /proc")
def test_no_helper_outlives_its_program(tmp_path):
    code = f"""
import json, os, signal, sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
from support.bridge import Program, helper
with helper() as process:
    program = Program(process)
    program.ask("load")
    program.send("respond", model=1, prompt="?", options={LONG!r})
    program.next_event()
    print(process.process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    helper_folder = Path("/proc") / done.stdout.strip()
    deadline_s = time.monotonic() + 20
    while helper_folder.exists() and "\nState:\tZ" not in helper_folder.joinpath("status").read_text():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_an_installation_that_is_not_whole_is_told():
    with helper("sys.modules['mlx.core'] = None") as process:
        event = Program(process).next_event()
        assert (event["event"], event["kind"]) == ("error", "package_missing") and "mlx.core" in event["message"]
        assert process.ended(within_s=20) == 1


def test_a_lost_gpu_ends_the_helper():
    lose = (
        "import mlx_smolvlm.bridge.handlers as h; "
        "h.generate_text = lambda *_, **__: (_ for _ in ()).throw(RuntimeError('Insufficient Memory'))"
    )
    with helper(lose) as process:
        program = Program(process)
        program.ask("load")
        assert program.error("warm_up", model=1)[0] == "out_of_memory"
        assert process.ended(within_s=20) == 75


@pytest.mark.slow
def test_killed_at_any_moment_nothing_is_left():
    for moment in range(20):
        with helper() as process:
            program = Program(process)
            program.send("load")
            program.send("respond", model=1, prompt=QUESTION, images=[{"path": PICTURE}])
            time.sleep(0.05 * moment)
            os.kill(process.process.pid, signal.SIGKILL)
            assert process.ended(within_s=20) == -signal.SIGKILL
