"""What is typed into a chat: lines, pasted and quoted text, dropped files, Tab, and the history."""

import base64
import io
import os
import pty
import select
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.media import picture, video_path

from mlx_smolvlm.command_line import line_editor
from mlx_smolvlm.command_line.dropped_media import take_media
from mlx_smolvlm.command_line.inline_images import encoded
from mlx_smolvlm.command_line.line_editor import LineInput, candidates
from mlx_smolvlm.command_line.state import MAX_HISTORY, History, state_folder

ROOT = Path(__file__).parent.parent.parent
COMMANDS = ["/image", "/video", "/load", "/save", "/undo"]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder, the working one, with an image whose name has a space, a video, and a text."""
    picture("landscape").save(tmp_path / "a picture.png")
    (tmp_path / "clip").write_bytes(video_path("short").read_bytes())
    (tmp_path / "notes.txt").write_text("no image")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_lines_between_triple_quotes_are_one(monkeypatch):
    lines = ['"""What is', "", 'this?"""', '"""', "One", '"""', "plain", '"""never', "closed"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    typed = LineInput()
    assert [typed.next() for _ in range(4)] == ["What is\n\nthis?", "One", "plain", "never\nclosed"]
    with pytest.raises(EOFError):
        typed.next()


def test_dropped_files_are_told_from_the_question(files):
    image, clip = f"{files}/a picture.png", f"{files}/clip"
    escaped = image.replace(" ", "\\ ")
    for line, expected in {
        image: ("", [image]),
        f"'{image}'": ("", [image]),
        f'"{image}" ': ("", [image]),
        escaped: ("", [image]),
        f"{escaped} {clip}": ("", [image, clip]),
        "clip": ("", ["clip"]),
        "'a picture.png' clip": ("", ["a picture.png", "clip"]),
        f"{escaped} What's this?": ("What's this?", [image]),
        f"What is this? '{image}'": ("What is this?", [image]),
        f"Is {escaped} like {clip}?": ("Is a picture.png like clip?", [image, clip]),
        f"file://{files}/a%20picture.png what": ("what", [f"{files}/a picture.png"]),
        "What is a clip?": ("What is a clip?", []),
        f"{files}/notes.txt": (f"{files}/notes.txt", []),
        f"{files}/absent.png": (f"{files}/absent.png", []),
        "it's a 'test": ("it's a 'test", []),
        "": ("", []),
    }.items():
        assert take_media(line) == expected, line


def test_tab_offers_commands_and_paths(files):
    assert candidates("/", COMMANDS) == (0, COMMANDS)
    assert candidates("/un", COMMANDS) == (0, ["/undo"])
    assert candidates("/image ", COMMANDS) == (7, ["a\\ picture.png", "clip", "notes.txt"])
    assert candidates("/image a\\ p", COMMANDS) == (7, ["a\\ picture.png"])
    assert candidates(f"what is {files}/cl", COMMANDS) == (8, [f"{files}/clip"])
    assert candidates("what is this", COMMANDS) == (8, [])
    assert f"{files}/" in candidates(f"{files.parent}/{files.name[:-1]}", COMMANDS)[1]
    complete = line_editor._completer(COMMANDS)
    assert [complete("/image c", number) for number in (0, 1)] == ["/image clip", None]


def test_the_history_is_kept_for_the_next_chat_and_is_the_users_alone():
    history = History("chat-history")
    for entry in ("one", "one", " ", "two\nlines", "ünï"):
        history.add(entry)
    path = state_folder() / "chat-history"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text(path.read_text(encoding="utf-8") + "not JSON\n7\n", encoding="utf-8")
    assert History("chat-history").entries == ["one", "two\nlines", "ünï"]
    unkept = History(None)
    unkept.add("secret")
    assert "secret" not in path.read_text(encoding="utf-8")


def test_a_long_history_is_read_from_its_end():
    history = History("chat-history")
    for number in range(MAX_HISTORY + 5):
        history.add(str(number))
    assert History("chat-history").entries[0] == "5"


def test_a_history_does_not_grow_for_ever():
    path = state_folder() / "chat-history"
    path.parent.mkdir(parents=True)
    path.write_text("".join(f'"{number}"\n' for number in range(2 * MAX_HISTORY + 1)), encoding="utf-8")
    path.chmod(0o600)
    entries = History("chat-history").entries
    assert (entries[0], entries[-1]) == (str(MAX_HISTORY + 1), str(2 * MAX_HISTORY))
    assert len(path.read_text(encoding="utf-8").splitlines()) == MAX_HISTORY
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert History("chat-history").entries == entries


def test_where_nothing_can_be_kept_the_chat_goes_on(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    history = History("chat-history")
    history.add("one")
    assert history.entries == ["one"]


def test_images_are_encoded_for_both_protocols():
    png = bytes(range(256)) * 20
    text = base64.b64encode(png).decode()
    assert encoded(png, "iterm2") == f"\x1b]1337;File=inline=1;size={len(png)}:{text}\x07"
    first, last = encoded(png, "kitty").split("\x1b\\")[:2]
    assert first == f"\x1b_Ga=T,f=100,q=2,m=1;{text[:4096]}"
    assert last == f"\x1b_Gm=0;{text[4096:]}"
    assert encoded(png[:30], "kitty").startswith("\x1b_Ga=T,f=100,q=2,m=0;")


class Terminal:
    """A chat with the demo model on a terminal; its answers may go elsewhere."""

    def __init__(self, term: str, *options: str, out: Path | None = None):
        self.seen = b""
        self._end, other = pty.openpty()
        stdout = other if out is None else out.open("wb")
        command = [sys.executable, "-m", "mlx_smolvlm.chat", "--max-tokens", "4", *options]
        environment = {**os.environ, "TERM": term}
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=other, stdout=stdout, stderr=other, env=environment, start_new_session=True
        )
        os.close(other)
        if out is not None:
            stdout.close()

    def type(self, text: bytes) -> None:
        os.write(self._end, text)

    def wait_for(self, text: bytes) -> None:
        until_s = time.monotonic() + 60
        while text not in self.seen:
            assert time.monotonic() < until_s, self.seen
            if select.select([self._end], [], [], 0.5)[0]:
                self.seen += os.read(self._end, 1000)
        self.seen = self.seen.partition(text)[2]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._end)


PASTED = b"\x1b[200~What shape\nis it?\x1b[201~\r"
TERMS = ["xterm", pytest.param("dumb", marks=pytest.mark.slow)]  # prompt_toolkit, then readline


@pytest.mark.parametrize("term", TERMS)
def test_a_paste_is_one_question_and_prompts_stay_out_of_a_redirected_output(tmp_path, term):
    if term == "xterm":
        pytest.importorskip("prompt_toolkit")
    out = tmp_path / "answers.txt"
    terminal = Terminal(term, "--verbose", out=out)
    try:
        terminal.wait_for(b"> ")
        if term == "xterm":  # readline edits only where it also prints
            terminal.type(PASTED)
        else:
            terminal.type(b"What shape is it?\n")
        terminal.wait_for(b"tokens of prompt")
        terminal.type(b"exit\r")
        assert terminal.process.wait(60) == 0
    finally:
        terminal.close()
    answers = out.read_text(encoding="utf-8")
    assert answers.count("\n") == 1
    assert ">" not in answers and "\x1b" not in answers
    typed = ["What shape\nis it?" if term == "xterm" else "What shape is it?", "exit"]
    assert History("chat-history").entries == typed


@pytest.mark.slow
@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_many_ctrl_c_at_the_prompt_clear_the_line_and_no_more(term):
    terminal = Terminal(term, "--no-history")
    try:
        terminal.wait_for(b"> ")
        time.sleep(0.3)  # the reader listens
        terminal.type(b"half a line")
        for _ in range(10):
            terminal.process.send_signal(signal.SIGINT)
            time.sleep(0.002)
        terminal.wait_for(b"(Ctrl-D or /quit ends the chat)")
        time.sleep(0.3)
        terminal.type(b"\r")  # Python may notice the last Ctrl-C with the next key
        time.sleep(0.3)
        terminal.type(b"/undo\r")
        terminal.wait_for(b"no question yet")
        assert b"Traceback" not in terminal.seen
        terminal.type(b"/quit\r")
        assert terminal.process.wait(60) == 0
    finally:
        terminal.close()


@pytest.mark.slow
def test_ctrl_c_and_ctrl_d_at_the_prompt():
    """With prompt_toolkit; tests/commands/test_chat_command.py has readline's."""
    pytest.importorskip("prompt_toolkit")
    terminal = Terminal("xterm", "--no-history")
    try:
        terminal.wait_for(b"> ")
        terminal.type(b"hello\r")
        terminal.wait_for(b"\n")
        terminal.wait_for(b"> ")
        terminal.type(b"half a line")
        terminal.process.send_signal(signal.SIGINT)
        terminal.wait_for(b"(Ctrl-D or /quit ends the chat)")
        terminal.wait_for(b"> ")
        terminal.type(b"\x04")
        assert terminal.process.wait(60) == 0
    finally:
        terminal.close()
    assert History("chat-history").entries == []
