"""Text and images from standard input and other pipes: used, or refused in one line."""

import io
import json
import os
import sys
import threading

import pytest
from support.command_lines import assert_refused, run
from support.media import picture
from support.pictures import saved

from mlx_smolvlm.command_line import standard_input


@pytest.fixture
def typed(monkeypatch, capsys, checkpoint):
    """A function from what is piped in, the command and its options to the run's result."""
    model = ("--model", checkpoint("smolvlm_256m"), "--max-tokens", 3)

    def call(content, command, *options):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        return run(monkeypatch, capsys, command, *model, *options)

    return call


@pytest.fixture
def content():
    return saved(picture("landscape"), "PNG")


@pytest.fixture
def pipe(tmp_path, content):
    """A named pipe with an image, as process substitution makes one."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=[content])
    writer.start()
    yield path
    writer.join()


def tokens(result):
    assert result.status == 0, result
    return json.loads(result.out)["prompt_token_ids"]


def test_text_is_read(typed, tmp_path):
    """Once the model was asked about "-"."""
    asked = tokens(typed(b"", "generate", "--json", "--prompt", "What is é?", "--system", "Be brief."))
    assert (
        tokens(typed("What is é?\n".encode(), "generate", "--json", "--prompt", "-", "--system", "Be brief.")) == asked
    )
    assert tokens(typed(b"Be brief.", "generate", "--json", "--prompt", "What is é?", "--system", "-")) == asked
    messages = json.dumps([{"role": "user", "content": "What is é?"}]).encode()
    assert tokens(typed(messages, "generate", "--json", "--messages", "-")) == tokens(
        typed("What is é?".encode(), "generate", "--json", "--prompt", "-")
    )
    result = typed(b'{"enum": ["yes"]}', "generate", "--prompt", "hi", "--json-schema", "-", "--max-tokens", "9")
    assert (result.status, result.out) == (0, '"yes"\n')


def test_an_image_is_read(typed, content, tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(content)
    asked = tokens(typed(b"", "generate", "--json", "--prompt", "What?", "--image", path))
    assert tokens(typed(content, "generate", "--json", "--prompt", "What?", "--image", "-")) == asked


def test_an_image_from_a_named_pipe_is_read(typed, pipe):
    result = typed(b"", "generate", "--json", "--prompt", "What?", "--image", pipe)
    assert json.loads(result.out)["usage"]["image_tokens"] == 52


def test_an_image_from_a_pipe_is_kept_in_a_chat(typed, pipe):
    """It can be read only once; a change before it makes its pixels again."""
    result = typed(b"What?\n/system Be brief.\nAnd?\n", "chat", "--image", pipe)
    assert result.status == 0
    assert result.out.count("\n") == 2
    assert "error" not in result.err


@pytest.mark.parametrize(
    ("command", "options", "content", "problem"),
    [
        (
            "generate",
            ["--prompt", "-", "--image", "-"],
            b"x",
            "--prompt - and --image -: standard input can be read once",
        ),
        ("generate", ["--image", "-", "--image", "/dev/stdin"], b"x", "--image - and --image /dev/stdin"),
        ("generate", ["--prompt", "-", "--system", "-"], b"x", "--prompt - and --system -"),
        ("generate", ["--prompt", "-"], b" \n", "--prompt -: standard input is empty"),
        ("generate", ["--prompt", "-"], b"\xff\xfe", "--prompt -: standard input is not UTF-8 text"),
        ("generate", ["--prompt", "-"], b"x" * (2**20 + 1), "more than the limit of 1048576 bytes"),
        ("generate", ["--prompt", "x", "--image", "-"], b"", "standard input is empty"),
        ("generate", ["--prompt", "x", "--image", "-"], b"hi", "text, not an image"),
        ("generate", ["--prompt", "x", "--video", "-"], b"x", "--video -: a video is not read from a pipe"),
        ("generate", ["--messages", "-"], b"[x", "the text of --messages is not JSON"),
        ("chat", ["--image", "-"], b"hi\n", "the chat and --image -: standard input can be read once"),
        ("chat", ["--image", "/dev/stdin"], b"hi\n", "the chat and --image /dev/stdin"),
        ("chat", ["--system", "-"], b"hi\n", "the chat and --system -"),
        ("batch", ["x.png", "--prompt", "-", "--system", "-"], b"hi\n", "--prompt - and --system -"),
        ("batch", ["x.png", "--prompt", "-"], b"", "--prompt -: standard input is empty"),
        ("watch", ["-", "--prompt", "-"], b"hi\n", "SOURCE - and --prompt -"),
        ("watch", ["x.mp4", "--prompt", "-"], b"", "--prompt -: standard input is empty"),
    ],
)
def test_what_cannot_be_read_is_refused(typed, command, options, content, problem):
    assert_refused(typed(content, command, *options), problem)


def test_an_image_in_a_chat_is_not_taken_from_its_questions(typed):
    result = typed(b"/image -\n/image /dev/stdin\n", "chat")
    assert result.err.count("error: the chat reads standard input itself; save the image to a file first") == 2


def test_images_from_pipes_are_bounded(typed, monkeypatch, content):
    monkeypatch.setattr(standard_input, "MAX_IMAGE_BYTES", len(content) - 1)
    assert_refused(
        typed(content, "generate", "--prompt", "x", "--image", "-"), "standard input has more than the limit"
    )
