"""Names of options that users of other programs type, misspelt ones, and media without an option."""

import json
import sys

import pytest
from support.command_lines import MODULES, assert_refused, run
from support.media import picture, video_path

import mlx_smolvlm
from mlx_smolvlm import generate as generate_command
from mlx_smolvlm.command_line.option_names import ELSEWHERE, own_words


@pytest.fixture
def generate(monkeypatch, capsys, checkpoint):
    """A function from options to the run's result, on a tiny checkpoint."""
    model = checkpoint("smolvlm_256m")
    return lambda *options: run(monkeypatch, capsys, "generate", "--model", model, *options)


@pytest.fixture
def image(tmp_path):
    picture("landscape").save(tmp_path / "a picture.png")
    return tmp_path / "a picture.png"


def parsed(words):
    return vars(generate_command._parser().parse_args(words.split()))


@pytest.mark.parametrize(
    ("typed", "own"),
    [
        ("--temp 0.5", "--temperature 0.5"),
        ("--temp=0.5", "--temperature=0.5"),
        ("-p hi", "--prompt hi"),
        ("-v", "--verbose"),
        ("-m 7", "--max-tokens 7"),
        ("-m some/model", "--model some/model"),
        ("--max_tokens 7 --top_p 0.5", "--max-tokens 7 --top-p 0.5"),
        ("--max-new-tokens 7", "--max-tokens 7"),
        ("--max_new_tokens=7", "--max-tokens=7"),
        ("--system-prompt hi", "--system hi"),
        ("--system_prompt hi", "--system hi"),
        ("--prefill-step-size 64", "--prefill-chunk 64"),
        ("--images a.png b.png", "--image a.png --image b.png"),
        ("--image a.png b.png --videos c.mp4", "--image a.png --image b.png --video c.mp4"),
        ("a.png --prompt hi b.png", "a.png b.png --prompt hi"),
    ],
)
def test_other_names_mean_the_same(typed, own):
    assert parsed(typed) == parsed(own)


def test_other_names_of_training_mean_the_same():
    assert own_words(["--lr", "1e-4", "--lora_rank=8"], ["--learning-rate", "--rank"]) == [
        *("--learning-rate", "1e-4", "--rank=8")
    ]


def test_values_are_left_as_they_are():
    known = ["--prompt", "--stop"]
    words = ["--prompt=--temp_x", "--stop", "a_b", "-1", "--prompt", "-- not an option", "--", "--odd_one"]
    assert own_words(words, known) == words


@pytest.mark.parametrize("module", MODULES)
def test_every_command_hints_at_misspelt_options(monkeypatch, capsys, module):
    refused = run(monkeypatch, capsys, module, "--modle", "x", "--verson")
    assert_refused(refused, "unrecognized arguments: --modle; did you mean '--model'?")
    assert_refused(run(monkeypatch, capsys, module, "--zzzz"), "unrecognized arguments: --zzzz (see --help)")


@pytest.mark.parametrize("module", MODULES)
def test_every_command_tells_its_version(monkeypatch, capsys, module):
    assert run(monkeypatch, capsys, module, "--version") == (0, f"mlx-smolvlm {mlx_smolvlm.__version__}\n", "")


@pytest.mark.parametrize("option", ELSEWHERE)
def test_options_without_a_counterpart_say_what_to_do(generate, option):
    assert_refused(generate("--prompt", "hi", option.replace("-", "_").replace("__", "--", 1), "x"), ELSEWHERE[option])


def test_sources_without_an_option_are_named_so(monkeypatch, capsys):
    refused = run(monkeypatch, capsys, "batch", "--image", "a.png")
    assert_refused(refused, "unrecognized arguments: --image; name files and addresses without an option")


def test_bare_files_are_media_by_their_content(generate, image, tmp_path):
    """Also under a name that says something else."""
    clip = tmp_path / "clip.png"
    clip.write_bytes(video_path("short").read_bytes())
    words = ("--prompt", "hi", "--max-tokens", 2, "--json")
    bare = json.loads(generate(image, *words, clip).out)
    named = json.loads(generate("--image", image, "--video", clip, *words).out)
    assert bare["prompt_token_ids"] == named["prompt_token_ids"]
    assert bare["usage"]["image_tokens"] == 56


def test_a_bare_word_that_is_no_file_is_refused(generate):
    assert_refused(generate("What", "is", "this?"), "What: no such file (a question is given by --prompt, in quotes)")


def test_quiet_prints_the_answer_alone(monkeypatch, capsys):
    loud = run(monkeypatch, capsys, "generate", "--max-tokens", 3)
    quiet = run(monkeypatch, capsys, "generate", "--max-tokens", 3, "--quiet")
    assert "demo model" in loud.err and quiet == (0, loud.out, "")
    assert_refused(run(monkeypatch, capsys, "generate", "--quiet", "--verbose"), "exclude each other")


def test_the_demo_note_comes_once_and_never_beside_json(monkeypatch, capsys):
    command = ("generate", "--prompt", "hi", "--max-tokens", 1)
    assert run(monkeypatch, capsys, *command, "--json").err == ""
    assert "demo model" in run(monkeypatch, capsys, *command).err
    assert run(monkeypatch, capsys, *command).err == ""


@pytest.mark.parametrize("name", ["generate", "chat", "watch", "batch", "convert"])
def test_a_command_that_is_called_as_a_function_names_the_function(name):
    """mlx-lm and mlx-vlm have functions of these names."""
    module = __import__(f"mlx_smolvlm.{name}", fromlist=["main"])
    with pytest.raises(
        TypeError, match=rf"mlx_smolvlm.{name} is the command's module, not a function; call mlx_smolvlm."
    ):
        module(None, None, prompt="hi")
    assert sys.modules[f"mlx_smolvlm.{name}"] is module


def test_the_most_pixels_of_an_image_can_be_set(generate, image):
    assert_refused(generate("--max-pixels", 1000, image), "more than the limit of 1000 pixels")
    assert_refused(generate("--max-pixels", 0, image), "max_pixels is 0, expected at least 1 pixel")


def test_warnings_of_pillow_name_the_file(generate, image, tmp_path):
    """Of each file: Python shows a warning that repeats only once."""
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x40\x00\x12\x01\x03\x00\x01\x00\x00\x00"  # 64 entries, not one whole
    paths = [tmp_path / "one.jpg", tmp_path / "two.jpg"]
    for path in paths:
        picture("landscape").save(path, exif=exif)
    result = generate("--prompt", "hi", "--max-tokens", 1, "--no-split", *paths)
    warned = [line for line in result.err.splitlines() if line.startswith("warning: ")]
    assert len(warned) == 2
    assert all(str(path) in line and "EXIF" in line for path, line in zip(paths, warned, strict=True))


def test_sampling_that_changes_nothing_is_named(generate):
    words = ("--prompt", "Hello", "--max-tokens", 1, "--top-p", 0.9, "--min-p", 0.1)
    note = "note: without effect at --temperature 0, where the likeliest token is taken: --top-p, --min-p\n"
    assert note in generate(*words).err
    for more in (("--temperature", 1), ("--quiet",)):
        assert "without effect" not in generate(*words, *more).err
