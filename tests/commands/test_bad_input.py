"""Bad pictures, videos, messages and model folders: one line on stderr and status 2, whatever the input."""

import json
import struct
import zlib

import av
import numpy as np
import pytest
from support.command_lines import assert_refused, run
from support.editing import WEIGHTS, change_weights, copied, set_field
from support.media import picture, video_path

NORM = "model.text_model.norm.weight"


@pytest.fixture
def generate(monkeypatch, capsys, checkpoint):
    """A function from options to the run's result, on a tiny checkpoint; `--model` may be given again."""
    model = checkpoint("smolvlm_256m")
    return lambda *options: run(monkeypatch, capsys, "generate", "--model", model, "--max-tokens", 2, *options)


def bomb():
    """A PNG of 60,000 x 60,000 pixels by its header, and of a few bytes."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def png(tmp_path):
    picture("tiny").save(tmp_path / "whole.png")
    return (tmp_path / "whole.png").read_bytes()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (lambda whole: b"", "empty"),
        (lambda whole: whole[: len(whole) // 2], "damaged or cut short"),
        (lambda whole: b"hello\n", "text, not an image"),
        (lambda whole: b"<!doctype html><html>", "a web page"),
        (lambda whole: bomb(), "60000x60000 pixels, more than the limit"),
        (lambda whole: video_path("clip").read_bytes(), "a video, not an image"),
    ],
)
def test_what_is_no_picture_is_refused(generate, tmp_path, content, problem):
    path = tmp_path / "Bild\nü.png"
    path.write_bytes(content(png(tmp_path)))
    assert_refused(generate("--image", path), problem)


@pytest.mark.parametrize("option", ["--image", "--video"])
@pytest.mark.parametrize(
    "source",
    ["missing.xyz", "", ".", "loop", "~nobody-of-this-name/x", "http://127.0.0.1:9/x", "file://far/x", "a" * 300],
)
def test_what_is_not_there_is_refused(generate, tmp_path, monkeypatch, option, source):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    assert_refused(generate(option, source), "")


def audio(path):
    with av.open(str(path), "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b"<html>"), "is not a video"),
        (lambda path: path.write_bytes(video_path("clip").read_bytes()[:2000]), "clip.mp4"),
        (lambda path: picture("tiny").save(path, format="PNG"), "an image, not a video"),
        (lambda path: picture("tiny").save(path, format="JPEG"), "an image, not a video"),
        (lambda path: picture("tiny").save(path, format="GIF"), "an image, not a video"),
        (audio, "has no video stream"),
    ],
)
def test_what_is_no_video_is_refused(generate, tmp_path, write, problem):
    path = tmp_path / "clip.mp4"
    write(path)
    result = generate("--video", path)
    assert_refused(result, problem)


@pytest.mark.parametrize(
    ("prompt", "num_images", "problem"),
    [
        ("<image><image> hi", 1, "2 <image> markers but 1 image was given"),
        ("<image> hi", 2, "1 <image> marker but 2 images"),
        ("<image> hi", 0, "1 <image> marker but 0 images"),
        ("<video> hi", 0, "1 <video> marker but 0 videos"),
        ("<|im_start|>User: hi<end_of_utterance>\nAssistant:", 1, "0 <image> markers but 1 image was given"),
    ],
)
def test_each_marker_needs_a_picture_and_each_picture_a_marker(generate, tmp_path, prompt, num_images, problem):
    png(tmp_path)
    images = ["--image", tmp_path / "whole.png"] * num_images
    assert_refused(generate("--prompt", prompt, *images), problem)


def user(*content):
    return json.dumps([{"role": "user", "content": list(content)}])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not JSON"),
        ("<html>", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"role": "user"}', "expected a list"),
        ("[]", "at least one message"),
        ("[5]", "messages[0] is 5"),
        ('[{"content": "hi"}]', "has role None"),
        ('[{"role": "robot", "content": "hi"}]', "has role 'robot'"),
        ('[{"role": ["user"], "content": "hi"}]', "has role ['user']"),
        ('[{"role": "user"}]', "has content None"),
        ('[{"role": "user", "content": ""}]', "has content ''"),
        ('[{"role": "user", "content": {"type": "text"}}]', "has content {"),
        (user(), "has content []"),
        (user({"type": "audio", "path": "x"}), "content type 'audio'"),
        (user({"type": ["text"]}), "content type ['text']"),
        (user("hi"), "content type None"),
        (user({"type": "text"}), "text item without 'text'"),
        (user({"type": "image"}), "more image items than images"),
        (user({"type": "image", "path": "a", "url": "b"}), "2 sources"),
        (user({"type": "image", "path": 5}), "int object: not an image"),
        (user({"type": "image", "path": "missing.png"}), "no such file"),
        (user({"type": "video", "path": 5}), "a video is int"),
        (user({"type": "text", "text": "<image>"}), "text has a <image> marker"),
    ],
)
def test_malformed_messages_are_refused(generate, tmp_path, text, problem):
    path = tmp_path / "messages.json"
    path.write_text(text, encoding="utf-8")
    assert_refused(generate("--messages", path), problem)


@pytest.mark.parametrize("path", ["missing.json", "."])
def test_a_messages_file_that_cannot_be_read_is_named(generate, path):
    assert_refused(generate("--messages", path), path)


def test_names_of_files_neither_break_the_line_nor_steer_the_terminal(generate):
    """Those of the system's own errors were printed as they are, whatever their length."""
    named = generate("--messages", "no\x1b[2J\nx.json")
    assert named.err == "error: No such file or directory: no\\x1b[2J x.json\n"
    assert (
        generate("--image", "\x1b[2J.png", "--prompt", "x").err == "error: \\x1b[2J.png: no such file; check the path\n"
    )
    assert "\x1b" not in generate("--fo\x1bo").err
    assert len(generate("--messages", "a" * 100_000).err) < 400


def test_a_file_that_is_no_text_is_named(generate, tmp_path):
    """The message named the byte, but not the file."""
    (tmp_path / "photo.json").write_bytes(b"\xff\xd8\xff")
    for option in ("--messages", "--json-schema"):
        arguments = (option, tmp_path / "photo.json", *(() if option == "--messages" else ("--prompt", "hi")))
        assert_refused(generate(*arguments), f"{tmp_path / 'photo.json'} is not a text file; expected")


FOLDERS = {
    "no configuration": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "no .safetensors files"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer.json"),
    "truncated weights": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:5000]), "is truncated"),
    "missing shard": (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"x": "model-2.safetensors"}}'),
        "lacks model-2.safetensors",
    ),
    "extra tensor": (lambda f: change_weights(f, lambda w: w.update(stray=w[NORM].copy())), "unexpected stray"),
    "misshaped tensor": (lambda f: change_weights(f, lambda w: w.update({NORM: w[NORM][:9].copy()})), "is (9,)"),
    "nan weights": (lambda f: change_weights(f, lambda w: w.update({NORM: w[NORM] * np.nan})), "not finite"),
    "unknown model type": (lambda f: set_field(f / "config.json", "llava", "model_type"), "model_type is 'llava'"),
    "web page": (lambda f: (f / "config.json").write_text("<html>"), "is not valid JSON"),
    "broken template": (lambda f: template(f, "{% if %}"), "chat template failed"),
    "raising template": (lambda f: template(f, "{{ raise_exception('no\nway') }}"), "no way"),
    "dividing template": (lambda f: template(f, "{{ 1 // 0 }}"), "chat template failed"),
    "greedy template": (lambda f: template(f, "{{ 'x' * 10 ** 20 }}"), "chat template failed"),
    "recursive template": (lambda f: template(f, "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}"), "recursion"),
    "endless template": (lambda f: template(f, "{% for i in range(10 ** 9) %}{% endfor %}"), "Range too big"),
    "escaping template": (lambda f: template(f, "{{ raise_exception.__globals__['json'] }}"), "is unsafe"),
    "writing template": (lambda f: template(f, "{{ messages.append(1) }}"), "is unsafe"),
    "including template": (lambda f: template(f, "{% include '/etc/passwd' %}"), "no loader"),
    "template without picture": (lambda f: template(f, "hi"), "0 <image> markers for 1 media"),
}


def template(folder, text):
    set_field(folder / "chat_template.json", text, "chat_template")


@pytest.mark.parametrize("damage", FOLDERS)
def test_a_damaged_or_hostile_model_folder_is_refused(generate, checkpoint, tmp_path, damage):
    change, problem = FOLDERS[damage]
    folder = copied(checkpoint("smolvlm_256m"), tmp_path / "Modell ü")
    change(folder)
    png(tmp_path)
    assert_refused(generate("--model", folder, "--image", tmp_path / "whole.png", "--no-split"), problem)
