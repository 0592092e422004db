"""`python -m mlx_smolvlm.generate`: what it prints, and how it refuses."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.command_lines import assert_refused, run
from support.golden_cases import golden_cases
from support.media import picture, video_path

from mlx_smolvlm.command_line.runner import print_json, refuse_tracebacks

ROOT = Path(__file__).parent.parent.parent
TIMING = {"load", "processing", "vision", "prefill", "time_to_first_token", "decode"}


@pytest.fixture
def image(tmp_path):
    """A picture file whose name is not ASCII."""
    path = tmp_path / "Bild ü 图.png"
    picture("landscape").save(path)
    return path


@pytest.fixture
def generate(monkeypatch, capsys, checkpoint):
    """A function from options to the run's result, on a tiny checkpoint; `--model` may be given again."""
    model = checkpoint("smolvlm_256m")
    return lambda *options: run(monkeypatch, capsys, "generate", "--model", model, "--max-tokens", 4, *options)


NO_DRAFTS = {"drafted_tokens": 0, "accepted_tokens": 0}


def test_json_is_one_object_with_the_promised_fields(generate, image, checkpoint):
    case = golden_cases("smolvlm_256m")["landscape"]
    question = case["messages"][-1]["content"][-1]["text"]
    result = generate("--image", image, "--prompt", question, "--json", "--dtype", "float32", "--max-tokens", 32)
    report = json.loads(result.out)
    assert result.out.count("\n") == 1
    assert (result.status, result.err) == (0, "")
    assert report.pop("timing").keys() == TIMING
    assert report.pop("decode_tokens_per_second") > 0
    assert report.pop("peak_memory_bytes") > 0
    assert report == {
        "text": case["text"].removeprefix(" "),
        "token_ids": case["generated_ids"],
        "prompt_token_ids": case["input_ids"],
        "finish_reason": "length",
        "usage": {"prompt_tokens": len(case["input_ids"]), "image_tokens": 52, "completion_tokens": 32} | NO_DRAFTS,
        "model": str(checkpoint("smolvlm_256m")),
    }


def test_text_goes_to_stdout_and_nothing_else(generate):
    text = json.loads(generate("--prompt", "hi", "--json").out)["text"]
    result = generate("--prompt", "hi")
    assert result == (0, f"{text}\n", "")


def test_verbose_tells_costs_and_times_on_stderr(generate, image):
    result = generate("--image", image, "--video", video_path("short"), "--prompt", "hi", "--verbose")
    assert "image 1: 52 tokens, 3 x 4 tiles and the global image" in result.err
    assert image.name in result.err
    assert "video 1: 4 tokens, 1 frame " in result.err
    assert "56 of them for images" in result.err
    assert "peak memory" in result.err


def test_messages_come_from_a_file(generate, image, tmp_path):
    content = [{"type": "image", "path": str(image)}, {"type": "text", "text": "hi"}]
    path = tmp_path / "messages.json"
    path.write_text(json.dumps([{"role": "user", "content": content}]), encoding="utf-8")
    by_file = json.loads(generate("--messages", path, "--json").out)
    by_flags = json.loads(generate("--image", image, "--prompt", "hi", "--json").out)
    assert by_file["prompt_token_ids"] == by_flags["prompt_token_ids"]
    assert by_file["usage"]["image_tokens"] == 52


def test_files_may_begin_with_a_mark_of_their_encoding(generate, tmp_path):
    """Editors on Windows put one first. Read from standard input, it was taken off."""
    (tmp_path / "messages.json").write_text('[{"role": "user", "content": "hi"}]', encoding="utf-8-sig")
    (tmp_path / "schema.json").write_text('{"enum": [5]}', encoding="utf-8-sig")
    answer = generate("--messages", tmp_path / "messages.json", "--json-schema", tmp_path / "schema.json")
    assert answer.out == "5\n"


def test_media_options_of_messages_are_refused_where_they_change_nothing(generate, image, tmp_path):
    path = tmp_path / "messages.json"
    path.write_text(json.dumps([{"role": "user", "content": [{"type": "image", "path": str(image)}]}]))
    assert generate("--messages", path, "--no-split").err == ""
    assert_refused(generate("--messages", path, "--fps", "3"), "fps is 3.0, but there is no video; leave it out")
    path.write_text('[{"role": "user", "content": "hi"}]')
    assert_refused(generate("--messages", path, "--no-split"), "but there is no image; leave it out")


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_hardware_decoding_that_is_not_there_is_said(generate, monkeypatch, platform):
    monkeypatch.setattr("mlx_smolvlm.command_line.notes.sys.platform", platform)
    result = generate("--video", video_path("short"), "--prompt", "hi", "--hardware-decoding")
    assert result.status == 0
    assert ("note: --hardware-decoding uses VideoToolbox, which only Macs have" in result.err) == (platform == "linux")


def test_a_system_prompt_comes_first(generate, loaded):
    ids = json.loads(generate("--system", "Be brief.", "--prompt", "hi", "--json").out)["prompt_token_ids"]
    text = loaded("smolvlm_256m")[1].decode(ids, skip_special_tokens=False)
    assert text.startswith("<|im_start|>System: Be brief.<end_of_utterance>\nUser: hi<end_of_utterance>\n")


def test_media_options_change_what_is_sent(generate, image):
    assert json.loads(generate("--image", image, "--json", "--no-split").out)["usage"]["image_tokens"] == 4
    assert json.loads(generate("--image", image, "--json", "--max-edge", 256).out)["usage"]["image_tokens"] == 20
    video = ("--video", video_path("clip"), "--json")
    assert json.loads(generate(*video, "--fps", 2, "--max-frames", 3).out)["usage"]["image_tokens"] == 12


def test_a_seed_fixes_the_answer(generate):
    options = ("--prompt", "hi", "--json", "--temperature", 2, "--max-tokens", 16)
    one, same, other = (json.loads(generate(*options, "--seed", seed).out)["token_ids"] for seed in (1, 1, 2))
    assert one == same != other


def test_a_tiny_temperature_is_greedy(generate):
    """Dividing by 1e-300 used to turn the logits into infinities, and the answer into the first such token."""
    greedy = generate("--prompt", "hi")
    assert generate("--prompt", "hi", "--temperature", "1e-300") == greedy


OUT_OF_RANGE = {
    "--temperature": ("-1", "nan", "inf", "-inf", "x"),
    "--top-p": ("0", "-0.1", "1.1", "nan"),
    "--top-k": ("-1", "1.5"),
    "--min-p": ("-0.1", "1.1", "nan"),
    "--repetition-penalty": ("0", "-1", "nan", "inf"),
    "--seed": ("-1", str(2**64), "x"),
    "--max-tokens": ("0", "-5", "1.5", ""),
    "--max-edge": ("0", "-1", "4097", str(10**30)),
    "--fps": ("0", "-1", "nan", "inf"),
    "--max-frames": ("0", "-1"),
    "--dtype": ("int8", "FLOAT32", ""),
    "--stop": ("",),
}


@pytest.mark.parametrize(("option", "value"), [(o, v) for o, values in OUT_OF_RANGE.items() for v in values])
def test_options_out_of_range_are_refused_by_name(generate, option, value):
    name = option.removeprefix("--")
    result = generate("--prompt", "hi", f"{option}={value}")
    names = {name, name.replace("-", "_"), {"max-edge": "longest_edge"}.get(name)} - {None}
    assert_refused(result, "")
    assert any(name in result.err for name in names)


@pytest.mark.parametrize(
    "options",
    [
        ("--promt", "hi"),
        ("--prom", "hi"),  # no abbreviations
        ("--prompt",),
        ("hi",),
        ("--prompt", "hi", "two\nlines"),
        (),
        ("--prompt", ""),
        ("--prompt", " \n"),
        ("--prompt", "hi", "--system", ""),
        ("--prompt", "hi", "--messages", "x.json"),
        ("--prompt", "\ud800"),
    ],
)
def test_a_faulty_command_is_refused(generate, options):
    assert_refused(generate(*options), "")


@pytest.mark.parametrize("model", ["", "no such folder", "a/b/c", "~nobody-of-this-name", os.devnull, "x" * 5000])
def test_a_model_that_is_not_there_is_refused(generate, model):
    """An empty name, as of an unset variable, used to load the demo model."""
    assert_refused(generate("--prompt", "hi", "--model", model), "")


SCHEMA = '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}'


def test_answers_keep_to_a_form(generate, tmp_path):
    path = tmp_path / "schema.json"
    path.write_text(SCHEMA, encoding="utf-8")
    for schema in (path, SCHEMA, f" {SCHEMA}"):
        result = generate("--prompt", "hi", "--json-schema", schema, "--max-tokens", 40)
        assert isinstance(json.loads(result.out)["n"], int)
    report = json.loads(generate("--prompt", "hi", "--regex", "(yes|no)", "--json").out)
    assert report["text"] in ("yes", "no")
    assert report["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--json-schema", "no such.json"), "No such file or directory: no such.json"),
        (("--json-schema", "{"), "the JSON schema is not JSON"),
        (("--json-schema", __file__), "the JSON schema is not JSON"),
        (("--json-schema", '{"type": "objct"}'), "Invalid type: objct"),
        (("--json-schema", SCHEMA), "no answer that follows the schema or regex was found within 4 tokens"),
        (("--regex", "a(b"), "unclosed group"),
        (("--regex", "a", "--json-schema", SCHEMA), "both given"),
        (("--regex", "a", "--stop", "b"), "stop cannot be combined"),
    ],
)
def test_faulty_forms_are_refused(generate, options, problem):
    assert_refused(generate("--prompt", "hi", *options), problem)


def test_without_llguidance_one_line_says_what_to_install(generate, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    assert_refused(generate("--prompt", "hi", "--regex", "a"), "pip install llguidance")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--max-tokens", 0), "max_tokens is 0"),
        (("--stop", ""), "not empty"),
        (("--regex", "a", "--stop", "b"), "stop cannot be combined"),
        (("--image", "no such.png"), "no such.png: no such file"),
        (("--video", "no such.mp4"), "no such.mp4: no such file"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_loaded(generate, monkeypatch, options, problem):
    monkeypatch.setattr("mlx_smolvlm.api.loading.load", None)
    assert_refused(generate("--prompt", "What?", *options), problem)


def test_an_output_that_is_not_utf_8_ends_no_answer(monkeypatch, checkpoint):
    output = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", write_through=True)
    monkeypatch.setattr(sys, "stdout", output)
    with refuse_tracebacks():
        print("It\u2019s caf\u00e9")
        print_json({"text": "It\u2019s"})
    assert output.buffer.getvalue() == b'It?s caf\xe9\n{"text": "It\\u2019s"}\n'


def test_a_prompt_longer_than_the_context_says_what_pictures_cost(generate, image):
    result = generate("--prompt", "hi " * 8000, "--image", image)
    assert_refused(result, "the model's context is 8192")
    assert "52 tokens (3 x 4 tiles and the global image)" in result.err


def command(*options):
    return [sys.executable, "-m", "mlx_smolvlm.generate", *map(str, options)]


def test_a_real_process_prints_json_alone(checkpoint, image):
    options = ("--model", checkpoint("smolvlm_256m"), "--image", image, "--max-tokens", 2, "--json")
    done = subprocess.run(command(*options), cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True)
    assert len(json.loads(done.stdout)["token_ids"]) == 2
    assert done.stderr == ""


def test_a_real_process_refuses_with_status_2(checkpoint):
    options = ("--model", checkpoint("smolvlm_256m"), "--image", "no such.png")
    done = subprocess.run(command(*options), cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: no such.png: no such file; check the path\n"


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_reader_that_goes_away_is_no_error(checkpoint, options):
    """Output that was still in the buffer at the end used to fail while Python shut down."""
    arguments = command("--model", checkpoint("smolvlm_256m"), "--prompt", "hi", "--max-tokens", 40, *options)
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(arguments, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--fps", "2"], "--fps is 2.0, but there is no video; leave it out"),
        (["--end", "2"], "--end is 2.0, but there is no video"),
        (["--page", "2"], "--page is 2, but there is no image"),
        (["--no-split", "--video", video_path("short")], "--no-split is given, but there is no image"),
    ],
)
def test_options_of_media_that_there_are_not_are_refused(generate, options, problem):
    assert_refused(generate("--prompt", "hi", *options), problem)
