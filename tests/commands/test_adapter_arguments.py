"""`--adapter-path` of every command that loads a model, and `--export-adapter` of convert."""

import io
import json
import sys
from types import SimpleNamespace

import pytest
from support.command_lines import assert_refused, run
from support.editing import copied, set_field
from support.made_adapters import PLAIN, write_peft
from support.media import picture, video_path

from mlx_smolvlm import DEMO_MODEL, generate_text, load
from mlx_smolvlm.benchmark.geometries import GEOMETRIES, make_checkpoint
from mlx_smolvlm.command_line.adapter_arguments import model_name

BASE = "smolvlm_256m"
QUESTION = "What is the colour of the square in this image?"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """An adapter that changes what the base answers."""
    folder = tmp_path_factory.mktemp("adapter") / "strong"
    path = "model.text_model.layers.0.mlp.down_proj"
    return write_peft(folder, {path: (96, 160)}, lora_alpha=8, base_model_name_or_path=None)


@pytest.fixture(scope="module")
def expected(checkpoint, adapter):
    """A function from a weight, or None for the base, to the answer about no image."""

    def answer(weight=None):
        adapters = () if weight is None else (adapter, weight)
        return generate_text(*load(checkpoint(BASE), adapters=adapters, dtype="float32"), QUESTION, max_tokens=8)

    assert len({answer(), answer(1), answer(-0.5)}) == 3
    return answer


@pytest.fixture
def command(monkeypatch, capsys, checkpoint):
    """A function from a command, and words, to the run's result."""
    options = ("--model", checkpoint(BASE), "--dtype", "float32", "--max-tokens", 8)
    return lambda name, *words: run(monkeypatch, capsys, name, *options, *words)


def test_generate_uses_adapters_with_their_weights(command, adapter, expected):
    for word, weight in ((adapter, 1), (f"{adapter}=-0.5", -0.5)):
        assert command("generate", "--prompt", QUESTION, "--adapter-path", word).out == f"{expected(weight)}\n"
    twice = ("--adapter-path", f"{adapter}=0.4", "--adapter-path", f"{adapter}=0.6")
    result = command("generate", "--prompt", QUESTION, *twice, "--json")
    assert json.loads(result.out)["text"] == expected(1)
    assert json.loads(result.out)["model"].endswith(f" + {adapter}=0.4 + {adapter}=0.6")


def test_a_chat_goes_on_with_another_adapter(monkeypatch, command, adapter, expected):
    lines = [
        "/adapter",
        f"/adapter '{adapter}'=-0.5",
        "/new",
        QUESTION,
        "/adapter no-such",
        "/adapter none",
        "/new",
        QUESTION,
    ]
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    result = command("chat", "--adapter-path", adapter)
    assert [line for line in result.out.splitlines() if line] == [expected(-0.5), expected()]
    assert f"(adapter: {adapter})\n" in result.err and f"(adapter: {adapter}=-0.5)\n" in result.err
    assert "error: " in result.err and "no-such" in result.err and "(no adapter)\n" in result.err


def test_chat_batch_and_watch_use_them(monkeypatch, tmp_path, command, adapter, expected):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{QUESTION}\n"))
    assert expected(1) in command("chat", "--adapter-path", adapter).out
    picture("tiny").save(tmp_path / "tiny.png")
    words = ("batch", tmp_path / "tiny.png", "--prompt", QUESTION, "--out", tmp_path / "out.jsonl")
    assert command(*words, "--adapter-path", adapter).status == 0
    assert_refused(command(*words), "other")  # results of another model, which are not continued
    watch = ("watch", video_path("short"), "--prompt", QUESTION, "--quiet")
    answers = [command(*watch, *more).out for more in ((), ("--adapter-path", adapter))]
    assert answers[0] != answers[1]


def test_the_benchmark_measures_with_them(monkeypatch, capsys, tmp_path):
    tiny = make_checkpoint(GEOMETRIES["tiny"], "float32", tmp_path / "tiny")
    folder = write_peft(tmp_path / "adapter", {"model.text_model.layers.0.mlp.up_proj": (128, 64)})
    words = ("--only", "load,decode", "--runs", 1, "--new-tokens", 3, "--quiet", "--folder", tmp_path)
    result = run(monkeypatch, capsys, "benchmark", "--model", tiny, "--adapter-path", folder, *words)
    assert result.status == 0
    assert "tiny + adapter=1" in result.out
    result = run(monkeypatch, capsys, "benchmark", "--model", tiny, "--adapter-path", folder, "--against", "mlx-vlm")
    assert_refused(result, "--adapter-path does not go with --against")


def test_without_a_model_the_base_is_the_one_that_the_adapter_names(
    monkeypatch, capsys, checkpoint, tmp_path, adapter, expected
):
    named = copied(adapter, tmp_path / "named")
    set_field(named / "adapter_config.json", str(checkpoint(BASE)), "base_model_name_or_path")
    words = ("--prompt", QUESTION, "--max-tokens", 8, "--dtype", "float32")
    assert run(monkeypatch, capsys, "generate", "--adapter-path", named, *words).out == f"{expected(1)}\n"
    result = run(monkeypatch, capsys, "generate", "--adapter-path", adapter, *words)
    assert_refused(result, "the adapter's configuration names no base; name it by --model")
    result = run(monkeypatch, capsys, "generate", "--adapter-path", named)
    assert_refused(result, "nothing to ask: give --prompt, --image, --video or --messages")  # it is not the demo model


def test_the_demo_model_has_a_short_name():
    for model, name in ((None, "demo"), (str(DEMO_MODEL), "demo"), ("owner/name", "owner/name")):
        assert model_name(SimpleNamespace(model=model, adapter_path=["mine=0.5"])) == f"{name} + mine=0.5"


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("ADAPTER=heavy", "the weight 'heavy' is no number"),
        ("ADAPTER=nan", "the weight of adapter"),
        ("ADAPTER=", "the weight '' is no number"),
        ("no such folder", "no folder 'no such folder'"),
        ("", "name is empty"),
    ],
)
def test_adapters_that_cannot_be_used_are_refused(command, adapter, word, problem):
    assert_refused(
        command("generate", "--prompt", "Hi", "--adapter-path", word.replace("ADAPTER", str(adapter))), problem
    )


def test_an_adapter_of_another_size_is_refused(command, tmp_path):
    other = write_peft(tmp_path / "other", {"model.text_model.layers.0.mlp.down_proj": (64, 128)})
    result = command("generate", "--prompt", "Hi", "--adapter-path", other)
    assert_refused(result, "does not fit this base model: language_model.layers.0.mlp.down_proj.weight is (96, 160)")


def test_convert_merges_several_and_names_them_in_the_card(
    monkeypatch, capsys, checkpoint, tmp_path, adapter, expected
):
    words = ("--hf-path", checkpoint(BASE), "--mlx-path", tmp_path / "out", "--adapter-path", f"{adapter}=-0.5")
    assert run(monkeypatch, capsys, "convert", *words).status == 0
    assert generate_text(*load(tmp_path / "out", dtype="float32"), QUESTION, max_tokens=8) == expected(-0.5)
    assert "with the adapter `strong` (weight -0.5) merged into it" in (tmp_path / "out" / "README.md").read_text()
    report = json.loads((tmp_path / "out" / "quantization_report.json").read_text())
    assert report["adapters"] == [{"name": "strong", "weight": -0.5}]


def test_adapters_are_exported_both_ways(monkeypatch, capsys, command, tmp_path, adapter, expected):
    def export(source, target, *words):
        return run(monkeypatch, capsys, "convert", "--export-adapter", target, "--adapter-path", source, *words)

    result = export(adapter, tmp_path / "mlx")
    assert (result.status, result.err) == (0, "")
    assert result.out == f"{tmp_path / 'mlx'}: adapter_config.json, adapters.safetensors\n"
    assert export(tmp_path / "mlx", tmp_path / "peft", "--hf-path", "owner/base").status == 0
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "owner/base"
    for folder in (tmp_path / "mlx", tmp_path / "peft"):
        assert command("generate", "--prompt", QUESTION, "--adapter-path", folder).out == f"{expected(1)}\n"
    assert_refused(export(adapter, tmp_path / "mlx"), "exists already; choose another folder")
    assert_refused(export(adapter, tmp_path / "new", "-q"), "converts no model; leave --quantize out")
    assert_refused(export(f"{adapter}=0.5", tmp_path / "new"), "weight 0.5 cannot be exported")
    assert_refused(export(adapter, tmp_path / "new", "--adapter-path", PLAIN), "takes one --adapter-path, 2 were given")
