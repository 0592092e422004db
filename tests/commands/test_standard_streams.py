"""Standard streams that are closed or full, and Ctrl-C before a command has begun."""

import io
import itertools
import json
import os
import subprocess
import sys

import pytest
from support.media import video_path

from mlx_smolvlm import DEMO_MODEL
from mlx_smolvlm.command_line.standard_streams import say

PICTURE = str(DEMO_MODEL.parent / "picture.png")
needs_dev_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
COMMANDS = {
    "generate": ["generate", "--image", PICTURE, "--max-tokens", "8"],
    "json": ["generate", "--json", "--verbose", "--image", PICTURE],
    "watch": ["watch", str(video_path("short")), "--max-tokens", "4"],
    "chat": ["chat"],
    "batch": ["batch", PICTURE, "--out", "made.jsonl"],
    "convert": ["convert", "--hf-path", str(DEMO_MODEL), "--mlx-path", "made", "-d"],
    "help": ["generate", "--help"],
    "refused": ["generate", "--nope"],
}
REDIRECTIONS = ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-", "1>/dev/full", "2>/dev/full"]
QUICK = {("generate", "0<&- 1>&- 2>&-"), ("generate", "1>/dev/full"), ("batch", "2>/dev/full")}
CASES = [
    pytest.param(name, how, marks=[] if (name, how) in QUICK else pytest.mark.slow)
    for name, how in itertools.product(COMMANDS, REDIRECTIONS)
]


def run(arguments, redirection, folder):
    command = '"$@" ' + redirection
    words = ["sh", "-c", command, "sh", sys.executable, "-m", "mlx_smolvlm", *arguments]
    environment = {**os.environ, "LC_ALL": "C", "TERM": "dumb", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        words, cwd=folder, env=environment, input="What?\n", capture_output=True, text=True, timeout=120
    )


@needs_dev_full
@pytest.mark.parametrize(("name", "redirection"), CASES)
def test_the_work_is_done_as_far_as_it_can_be(tmp_path, name, redirection):
    """What cannot be printed is no reason for a traceback, for silence about the rest, or for another stream."""
    result = run(COMMANDS[name], redirection, tmp_path)
    prints = name not in ("batch", "refused")
    fails = name == "refused" or (redirection == "1>/dev/full" and prints and name != "chat")
    assert result.returncode == (2 if fails else 0), result
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr
    if "1>" not in redirection:
        is_silent = name in ("batch", "refused") or (name == "chat" and "0<" in redirection)
        assert bool(result.stdout) != is_silent
        assert "This is the embedded demo model" not in result.stdout  # which is a note
        if name == "json":
            assert json.loads(result.stdout)["text"]
    if redirection == "1>/dev/full" and prints:
        assert result.stderr.endswith("error: No space left on device\n")
    if name in ("batch", "convert"):
        assert list(tmp_path.glob("made*"))


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        *((name, "argparse") for name in ("generate", "chat", "watch", "batch")),
        *((name, "numpy") for name in ("convert", "benchmark")),
    ],
)
def test_ctrl_c_while_a_command_is_imported_ends_it_quietly(tmp_path, module, imported):
    """It was a traceback, for the first 0.4 s of `convert`."""
    (tmp_path / f"{imported}.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(30)\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    command = [sys.executable, "-m", f"mlx_smolvlm.{module}"]
    environment = {**os.environ, "PYTHONPATH": path}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


def test_a_program_that_imports_the_converter_keeps_its_handler():
    code = "import signal, mlx_smolvlm.convert\nraise SystemExit(signal.getsignal(2) is not signal.default_int_handler)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def test_what_nobody_foresaw_is_one_line_with_its_place(monkeypatch, capsys):
    """Libraries in Rust raise what is no `Exception`."""
    from mlx_smolvlm.command_line.runner import refuse_tracebacks

    class PanicException(BaseException):
        pass

    for error in (PanicException("index out of bounds"), KeyError("x")):
        with pytest.raises(SystemExit) as ending, refuse_tracebacks():
            raise error
        line = capsys.readouterr().err
        assert ending.value.code == 2
        assert line.startswith(f"error: {type(error).__name__} in test_standard_streams.py, line ")
        assert line.count("\n") == 1


class _InterruptedPipe(io.RawIOBase):
    """A pipe's end; while the first line is written, something else has to be said, as in a signal's handler."""

    def __init__(self, descriptor):
        super().__init__()
        self._descriptor, self._is_first = descriptor, True

    def writable(self):
        return True

    def fileno(self):
        return self._descriptor

    def write(self, part):
        if self._is_first:
            self._is_first = False
            say("stopping")
        return os.write(self._descriptor, part)


def test_what_a_handler_says_between_the_parts_of_a_line_is_said(monkeypatch):
    reader, writer = os.pipe()
    with open(reader, encoding="utf-8") as printed:
        with io.TextIOWrapper(io.BufferedWriter(_InterruptedPipe(writer)), encoding="utf-8") as stderr:
            monkeypatch.setattr("sys.stderr", stderr)
            say("an answer")
        os.close(writer)
        assert printed.read() == "stopping\nan answer\n"
