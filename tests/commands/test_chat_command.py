"""`python -m mlx_smolvlm.chat`: what it answers, how it goes on after errors, and how it is stopped."""

import io
import os
import pty
import select
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.command_lines import assert_refused, run
from support.media import picture, video_path

from mlx_smolvlm import stream_generate
from mlx_smolvlm.engine.answer import TextStream
from mlx_smolvlm.processor.processor import Processor

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def image(tmp_path):
    """A picture file with a space in its name."""
    path = tmp_path / "a picture.png"
    picture("landscape").save(path)
    return path


@pytest.fixture
def chat(monkeypatch, capsys, checkpoint):
    """A function from the lines that are typed, and options, to the run's result; one more session may follow."""

    def talk(*lines, options=()):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        model = ("--model", checkpoint("smolvlm_256m"), "--dtype", "float32", "--max-tokens", 4)
        return run(monkeypatch, capsys, "chat", *model, *options)

    return talk


def expected(pair, *turns):
    """Answers without any memory; a turn is (question, media)."""
    messages, answers = [], []
    for question, *media in turns:
        content = [*media, {"type": "text", "text": question}]
        messages.append({"role": "user", "content": content})
        answers.append("".join(step.text for step in stream_generate(*pair, messages, max_tokens=4)))
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answers[-1]}]})
    return "".join(f"{answer}\n" for answer in answers)


def test_answers_alone_go_to_stdout(chat, loaded, image):
    pair = loaded("smolvlm_256m")
    clip = {"type": "video", "path": str(video_path("short"))}
    shown = {"type": "image", "path": str(image)}
    result = chat("What is this?", f"/image {image}", "And this?", "", f"/video {video_path('short')}", "So?")
    assert result.out == expected(pair, ("What is this?",), ("And this?", shown), ("So?", clip))
    assert result.status == 0


def test_options_begin_the_chat(chat, loaded, image):
    pair = loaded("smolvlm_256m")
    result = chat("And this?", options=("--image", image, "--verbose"))
    assert result.out == expected(pair, ("And this?", {"type": "image", "path": str(image)}))
    assert "first token after" in result.err


def test_undo_retry_and_system(chat):
    first = chat("Hello there").out
    assert chat("Hello there", "/retry").out == first * 2
    result = chat("Hello there", "And then?", "/undo", "/undo", "Hello there", "/undo", "/undo")
    assert result.out.startswith(first)
    assert result.out.endswith(first)
    assert "(taken back: And then?)" in result.err
    assert "error: the conversation has no question yet" in result.err
    brief = chat("Hello there", options=("--system", "Be brief.")).out
    assert chat("/system Be brief.", "Hello there", "/undo", "/system", "Hello there").out == brief + first
    assert brief != first


def test_media_of_a_question_that_is_taken_back_go_with_the_next(chat, loaded, image):
    """Once they were forgotten: what was taken back to rephrase it was asked without its image."""
    shown = {"type": "image", "path": str(image)}
    clip = {"type": "video", "path": str(video_path("short"))}
    result = chat(f"/image {image}", f"/video {clip['path']}", "What is this?", "/undo", "/media", "And this?")
    asked = [(question, shown, clip) for question in ("What is this?", "And this?")]
    assert result.out == "".join(expected(loaded("smolvlm_256m"), turn) for turn in asked)
    assert (
        f"(goes with the next question: image {image}, video {clip['path']}; /media remove all removes)" in result.err
    )
    assert f"1  image {image}\n2  video {clip['path']}\n" in result.err


def test_media_are_listed_and_removed(chat, loaded, image):
    lines = [f"/image {image}", f"/image {image}", "/media remove 2", "/media", "/media remove 2", "What is this?"]
    result = chat(*lines, "/media", "/media rm")
    shown = {"type": "image", "path": str(image)}
    assert result.out == expected(loaded("smolvlm_256m"), ("What is this?", shown))
    assert f"(removed: image {image})\n1  image {image}\nerror: /media remove takes the number" in result.err
    assert "(no image or video goes with the next question)" in result.err
    assert "error: /media lists, /media remove N removes one" in result.err
    result = chat(f"/image {image}", "/media remove all", "Hello there")
    assert result.out == expected(loaded("smolvlm_256m"), ("Hello there",))


def test_a_saved_chat_goes_on(chat, image, tmp_path):
    path = tmp_path / "a chat"
    whole = chat(f"/image {image}", "What is this?", "And then?").out
    begun = chat(f"/image {image}", "What is this?", f"/save {path}").out
    assert begun + chat("And then?", options=("--load", path)).out == whole
    result = chat("Hello there", f"/load {path}", "And then?")
    assert result.out.endswith(whole.removeprefix(begun))
    assert "(a conversation of 1 question)" in result.err


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("/image no such.png", "no such.png: no such file"),
        ("/image", "name a file after the command"),
        (f"/image {video_path('short')}", "a video, not an image"),
        ("/video no such.mp4", "no such.mp4"),
        ("/load no such", "no file no such"),
        ("/save /no/such/folder/x", "no folder /no/such/folder"),
        (f"/save {__file__}", "exists already and is no saved session"),
        ("/retry", "no question yet"),
        ("/imge x", "no command /imge"),
        ("Is this <image>?", "1 <image> marker but 0 images"),
        ("\ud800", "not valid Unicode"),
    ],
)
def test_an_error_is_one_line_and_the_chat_goes_on(chat, line, problem):
    result = chat(line, "Hello there")
    assert (result.status, result.out) == (0, chat("Hello there").out)
    errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert problem in errors[0]


def test_names_may_be_pasted_as_terminals_write_them(chat, image):
    plain = chat(f"/image {image}", "What is this?")
    assert chat(f"/image '{image}'", "What is this?") == plain
    escaped = str(image).replace(" ", "\\ ")
    assert chat(f"/image {escaped}", "What is this?") == plain


def test_help_names_every_command(chat):
    from mlx_smolvlm.chat import HELP, _Chat

    result = chat("/help", "/quit", "Hello there")
    assert (result.out, result.err) == ("", f"{HELP}\n")
    assert {line.split()[0] for line in HELP.splitlines() if line.startswith("/")} == {
        *_Chat(None, False, None)._commands,
        "/quit",
    }


def test_an_answer_that_is_cut_says_so(chat):
    assert "(cut at 4 tokens; see --max-tokens)" in chat("Hello there", options=("--temperature", 1, "--seed", 1)).err


def test_answers_may_keep_to_a_form(chat):
    assert set(chat("Hello", "And?", options=("--regex", "(yes|no)")).out.split()) <= {"yes", "no"}


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_stops_the_answer_and_not_the_chat(chat, image, monkeypatch, presses):
    """Once: what there is of the answer stays. Twice at once: the question is taken back."""
    original, pressed = TextStream.add, []

    def add(self, token_id):
        for _ in range(presses - len(pressed)):
            pressed.append(1)
            signal.raise_signal(signal.SIGINT)
        return original(self, token_id)

    monkeypatch.setattr(TextStream, "add", add)
    handler = signal.getsignal(signal.SIGINT)
    result = chat(f"/image {image}", "What is this?", "/undo", "Hello there")
    assert signal.getsignal(signal.SIGINT) is handler
    assert "(stopped)" in result.err
    assert ("(taken back: What is this?)" if presses == 1 else "error: the conversation has no question") in result.err
    # Either way the image goes with the next question.
    assert result.out.endswith(chat(f"/image {image}", "Hello there").out)


def test_a_picture_stays_until_a_question_about_it_is_answered(chat, image):
    result = chat(f"/image {image}", "Here <image> and <image>?", "What is this?")
    assert "error: " in result.err
    assert result.out == chat(f"/image {image}", "What is this?").out


def test_a_new_conversation_knows_nothing_of_the_old_one(chat, image):
    result = chat("Name a colour.", f"/image {image}", "/new", "Hello there")
    assert f"(a new conversation; removed: image {image})" in result.err
    assert result.out.endswith(chat("Hello there").out)
    assert result.out.count("\n") == 2


def test_a_full_context_is_named_as_what_ends_an_answer(chat, loaded, monkeypatch):
    length = len(loaded("smolvlm_256m")[1]("Hello there").input_ids)
    original = Processor.__init__

    def short(self, *arguments, **options):
        original(self, *arguments, **options)
        self.config = replace(self.config, context_length=length + 2)

    monkeypatch.setattr(Processor, "__init__", short)
    assert "(cut at 2 tokens; the model's context is full; /new begins" in chat("Hello there").err


def test_a_saved_conversation_takes_the_system_prompt_that_is_given(chat, tmp_path):
    chat("Hello there", f"/save {tmp_path / 'saved'}")
    options = ("--load", tmp_path / "saved", "--system", "Answer in French.")
    given = chat("/undo", "Hello there", options=options).out
    assert given == chat("Hello there", options=("--system", "Answer in French.")).out


def test_addresses_are_no_files(chat):
    result = chat("/image data:image/png;base64," + "A" * 5000, "/video data:video/mp4;base64,AAAA", "/new")
    assert "File name too long" not in result.err
    assert len(result.err) < 1000


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--image", "no such.png"), "no such.png: no such file"),
        (("--load", "no such"), "no such: no such file"),
        (("--temperature", "-1"), "temperature"),
        (("--max-edge", "0"), "longest_edge"),
        (("--regex", "a(b"), "unclosed group"),
        (("--json-schema", "no such.json"), "no such.json"),
        (("--model", "no such folder"), "no such folder"),
        (("hello",), "unrecognized arguments"),
    ],
)
def test_faulty_options_end_with_one_line(chat, options, problem):
    assert_refused(chat(options=options), problem)


def command(checkpoint):
    return [sys.executable, "-m", "mlx_smolvlm.chat", "--model", str(checkpoint("smolvlm_256m")), "--max-tokens", "4"]


def test_a_pipe_may_hold_bytes_that_are_no_text(checkpoint):
    done = subprocess.run(
        command(checkpoint), cwd=ROOT, input=b"caf\xe9?\nHello", capture_output=True, check=True, timeout=60
    )
    assert done.stdout.count(b"\n") == 2
    assert b"error" not in done.stderr


def test_a_terminal_gets_a_prompt_and_hints(checkpoint):
    """Ctrl-C at the prompt hints at the way out; Ctrl-D is it."""
    terminal, other = pty.openpty()
    process = subprocess.Popen(
        command(checkpoint), cwd=ROOT, stdin=other, stdout=other, stderr=other, start_new_session=True
    )
    os.close(other)
    seen = b""

    def wait_for(text: bytes, interrupting: bool = False) -> None:
        """Read on to a text; pressing Ctrl-C until then, as the first may come before readline listens."""
        nonlocal seen
        for _ in range(120):
            if text in seen:
                seen = seen.partition(text)[2]
                return
            if interrupting:
                process.send_signal(signal.SIGINT)
            while text not in seen and select.select([terminal], [], [], 2 if interrupting else 0.5)[0]:
                seen += os.read(terminal, 1000)
        raise AssertionError(f"{text!r} did not come")

    try:
        wait_for(b"> ")
        os.write(terminal, b"/undo\n")
        wait_for(b"no question yet")
        wait_for(b"> ")
        wait_for(b"(Ctrl-D or /quit ends the chat)", interrupting=True)
        wait_for(b"> ")
        os.write(terminal, b"\x04")
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
