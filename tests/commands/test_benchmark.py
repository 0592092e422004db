"""The benchmark: that it measures what it says, on any geometry, and compares on equal terms."""

import json
import math
import os
import textwrap

import mlx.core as mx
import pytest
from support.command_lines import assert_refused, run

from mlx_smolvlm import load, stream_generate
from mlx_smolvlm.benchmark.__main__ import SECTIONS
from mlx_smolvlm.benchmark.benchmark_run import BenchmarkRun
from mlx_smolvlm.benchmark.generated_inputs import prompt_of, write_picture
from mlx_smolvlm.benchmark.geometries import GEOMETRIES, make_checkpoint
from mlx_smolvlm.benchmark.kernels import kernels_per_token
from mlx_smolvlm.benchmark.measurement import Measurement, PeerComparison
from mlx_smolvlm.benchmark.stages import decoder_bytes
from mlx_smolvlm.benchmark.tokenizer import make_tokenizer
from mlx_smolvlm.model.weights import hf_name, mlx_name, read_index

QUICK = ["--geometry", "tiny", "--runs", "1", "--image-size", "300x200", "--clip-seconds", "1", "--quiet"]
QUICK += ["--prompt-tokens", "40", "--new-tokens", "6", "--max-frames", "4", "--pictures", "1,2", "--contexts", "30,60"]
FAKE_PEER = '''
"""Stands in for mlx-vlm: answers with the tokens 7, 8, 9 ..., and dies of pictures."""

import sys
from types import SimpleNamespace

__version__ = "9.9"


def load(folder):
    return SimpleNamespace(config={}, set_dtype=lambda dtype: None), SimpleNamespace()


def stream_generate(model, processor, prompt, images, max_tokens, temperature):
    print("this must not mix with the answers")
    if images:
        sys.exit("out of memory")
    for token in range(max_tokens):
        yield SimpleNamespace(token=7 + token, prompt_tokens=40)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Keeps the random checkpoint between the tests."""
    return tmp_path_factory.mktemp("benchmark")


@pytest.fixture(scope="module")
def tiny(folder):
    return make_checkpoint(GEOMETRIES["tiny"], "float32", folder / "tiny")


def benchmark(monkeypatch, capsys, folder, *arguments):
    """The report as JSON, and what was printed."""
    result = run(monkeypatch, capsys, "benchmark", *QUICK, "--folder", folder, "--json", folder / "r.json", *arguments)
    assert result.status == 0, result.err
    return json.loads((folder / "r.json").read_text()), result


def test_every_section_reports_figures_in_the_table_and_in_json(monkeypatch, capsys, folder):
    sections = ["load", "preprocessing", "vision", "prefill", "decode", "video", "size"]
    report, result = benchmark(monkeypatch, capsys, folder, "--only", ",".join(sections))
    assert report["format"] == 1
    assert report["machine"]["device"] == "cpu"
    assert report["settings"]["runs"] == 1
    assert report["comparisons"] == []
    assert list(dict.fromkeys(found["section"] for found in report["measurements"])) == sections
    for found in report["measurements"]:
        assert set(found) == {"section", "name", "unit", "values", "note", "median"}
        assert all(math.isfinite(value) and value >= 0 for value in found["values"])
        assert found["name"] in result.out
    named = {found["name"]: found for found in report["measurements"]}
    assert named["decode"]["note"] == "6 tokens after 40"
    assert named["pipelined / one after the other"]["median"] == pytest.approx(
        named["first token, pipelined"]["median"] / named["first token, one stage after the other"]["median"]
    )
    assert {"1 pictures: first token", "2 pictures: vision", "60 tokens: decode"} <= set(named)
    assert result.err == ""


def test_sizes_beyond_the_context_are_left_out(monkeypatch, capsys, folder):
    options = ["--only", "size", "--contexts", "60,9000", "--pictures", "1", "--folder", folder]
    quick = [option for option in QUICK if option != "--quiet"]
    result = run(monkeypatch, capsys, "benchmark", *quick, *options)
    assert result.status == 0, result.err
    assert "60 tokens: prefill" in result.out
    assert "size: 9000 tokens left out: the prompt has" in result.err


def test_what_was_measured_is_not_lost_to_a_later_failure(monkeypatch, capsys, folder, tmp_path):
    def fail(_):
        raise MemoryError("no room")

    monkeypatch.setitem(SECTIONS, "decode", fail)
    options = ["--only", "load,decode", "--folder", folder, "--json", tmp_path / "r.json"]
    result = run(monkeypatch, capsys, "benchmark", *QUICK, *options)
    assert (result.status, result.err) == (2, "error: no room\n")
    assert "MB of weights" in result.out
    assert [found["section"] for found in json.loads((tmp_path / "r.json").read_text())["measurements"]] == ["load"]


def test_ctrl_c_ends_it_with_what_was_measured(monkeypatch, capsys, folder, tmp_path):
    """The runs of the part that was under way were lost, too."""
    answer, asked = BenchmarkRun.answer, []

    def interrupted(self, *arguments, **options):
        asked.append(arguments)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return answer(self, *arguments, **options)

    monkeypatch.setattr(BenchmarkRun, "answer", interrupted)
    quick = [option for option in QUICK if option != "--quiet"]
    options = ["--runs", "5", "--only", "load,prefill,decode", "--folder", folder, "--json", tmp_path / "r.json"]
    result = run(monkeypatch, capsys, "benchmark", *quick, *options)
    assert result.status == 130
    assert result.err.endswith("load\nprefill\nstopped; this has been measured\n")
    measured = json.loads((tmp_path / "r.json").read_text())["measurements"]
    runs = {found["name"]: len(found["values"]) for found in measured}
    assert runs == {"load": 5, "prefill": 2, "first token": 2, "peak memory over the weights": 1}
    assert all(found["name"] in result.out for found in measured)


def test_a_command_is_timed_from_its_start_to_its_end(monkeypatch, capsys, folder):
    report, _ = benchmark(monkeypatch, capsys, folder, "--only", "start")
    (found,) = report["measurements"]
    assert found["unit"] == "s"
    assert found["median"] > 0.05  # no process starts more quickly than that


DECODER_BYTES = 4 * (2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64 + 2 * 64) + 64 + (512 + 128) * 64)
"""Of the tiny geometry in float32: two layers, the last norm and the head."""


def test_bytes_to_read_are_those_of_layers_norm_and_head(tiny):
    assert decoder_bytes(load(tiny, dtype="float32")[0]) == DECODER_BYTES


@pytest.mark.slow
def test_a_quantized_decoder_has_fewer_bytes_to_read(monkeypatch, capsys, folder):
    report, _ = benchmark(monkeypatch, capsys, folder, "--only", "decode", "--bits", "4")
    (found,) = [found for found in report["measurements"] if found["name"] == "bytes to read per token"]
    assert found["median"] * 1e6 < 0.5 * DECODER_BYTES


@pytest.fixture
def fake_peer(monkeypatch, tmp_path):
    """An importable `mlx_vlm`."""
    package = tmp_path / "mlx_vlm"
    package.mkdir()
    (package / "__init__.py").write_text(FAKE_PEER)
    (package / "prompt_utils.py").write_text(
        textwrap.dedent("""
            def apply_chat_template(processor, config, prompt, num_images):
                return prompt
        """)
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.usefixtures("fake_peer")
def test_peers_are_asked_the_same_in_turn(monkeypatch, capsys, tmp_path):
    folder = tmp_path / "fresh"
    folder.mkdir()
    options = ["--only", "prefill,decode", "--against", "mlx-vlm", "--peers-only"]
    report, result = benchmark(monkeypatch, capsys, folder, *options)
    assert report["measurements"] == []
    assert not list(folder.glob("photo*"))  # nothing is made that these two do not need
    prefill, decode = report["comparisons"]
    assert (prefill["unit"], decode["unit"]) == ("s", "tokens/s")
    for found in (prefill, decode):
        assert len(found["own"]) == len(found["theirs"]) == 1
        assert found["ratio"] == pytest.approx(found["own"][0] / found["theirs"][0])
    assert "mlx-vlm 9.9, 40 tokens, the first 0 of 6 chosen are the same" in result.out


@pytest.mark.slow
@pytest.mark.usefixtures("fake_peer")
def test_a_peer_that_dies_is_told_and_ends_nothing_else(monkeypatch, capsys, folder):
    report, result = benchmark(
        monkeypatch, capsys, folder, "--only", "vision,decode", "--against", "mlx-vlm", "--peers-only"
    )
    died = [found for found in report["comparisons"] if found["section"] == "vision"]
    assert died
    assert all(found["ratio"] is None and "out of memory" in found["note"] for found in died)
    assert [found["section"] for found in report["comparisons"] if found["ratio"]] == ["decode"]
    assert "failed" in result.out


def test_the_ratio_is_the_median_of_the_rounds():
    """A round in which the machine was busy does not count for more."""
    found = PeerComparison("decode", "decode", "peer", "s", own=[1.0, 9.0, 1.0], theirs=[2.0, 9.0, 4.0])
    assert found.ratio == 0.5
    assert Measurement("load", "load", "s", [3.0, 1.0, 90.0]).median == 3.0


def test_markers_have_the_ids_of_the_family():
    tokenizer = make_tokenizer(49_152)
    ids = {49_152: "<global-img>", 49_153: "<row_1_col_1>", 49_188: "<row_6_col_6>", 49_190: "<image>"}
    assert {number: tokenizer.id_to_token(number) for number in ids} == ids
    assert tokenizer.token_to_id("<end_of_utterance>") == 49_279 == tokenizer.get_vocab_size() - 1
    text = "Tell me:\n\n“naïve” 3.14"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_answers_of_random_weights_never_end_early(tiny):
    steps = list(stream_generate(*load(tiny), "What is this?", max_tokens=200))
    assert len(steps) == 200
    assert all(step.token_id < 512 for step in steps)


def test_a_checkpoint_is_made_once_and_named_as_huggingface_does(tiny):
    before = os.stat(tiny / "model.safetensors").st_mtime_ns
    assert make_checkpoint(GEOMETRIES["tiny"], "float32", tiny) == tiny
    assert os.stat(tiny / "model.safetensors").st_mtime_ns == before
    assert [path.name for path in tiny.parent.glob(".*")] == []
    tensors = read_index(tiny)
    assert all(info.is_huggingface and info.name_in_file == hf_name(name) for name, info in tensors.items())
    assert all(mlx_name(hf_name(name)) == name for name in tensors)


def test_nothing_is_left_of_a_checkpoint_that_could_not_be_made(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(mx, "save_safetensors", full)
    with pytest.raises(OSError, match="no space"):
        make_checkpoint(GEOMETRIES["tiny"], "float32", tmp_path / "tiny")
    assert list(tmp_path.iterdir()) == []


def test_kernels_grow_by_the_same_number_with_every_layer(folder):
    counts = []
    for layers in (1, 2, 3):
        geometry = GEOMETRIES["tiny"].with_layers(layers, 1)
        model, _ = load(make_checkpoint(geometry, "float32", folder / f"{layers}"))
        counts.append(kernels_per_token(model.language_model))
    assert counts[2] - counts[1] == counts[1] - counts[0]
    assert 5 < counts[1] - counts[0] <= 17  # 17 where nothing is joined
    assert mx.fast.rope(mx.ones((1, 1, 1, 4)), 4, traditional=False, base=10.0, scale=1.0, offset=1)[0, 0, 0, 0] != 1


@pytest.mark.parametrize("num_tokens", [20, 41, 300, 8190])
def test_prompts_have_the_length_asked_for(tiny, num_tokens):
    processor = load(tiny)[1]
    assert len(processor(prompt_of(processor, num_tokens)).input_ids) == num_tokens


def test_no_two_tiles_of_a_picture_are_alike(tiny, tmp_path):
    """Tiles that are alike are encoded once, which would flatter."""
    processor = load(tiny)[1]
    paths = [write_picture(tmp_path / f"{seed}.jpg", (400, 300), seed) for seed in range(2)]
    tiles = [tile.tobytes() for path in paths for tile in processor("", images=[path]).pixel_values]
    assert len(set(tiles)) == len(tiles)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--geometry", "7b"], "'7b'"),
        (["--only", "decode,cooking"], "'cooking' is none of"),
        (["--runs", "0"], "'0' is no number"),
        (["--image-size", "400"], "no size like 4000x3000"),
        (["--image-size", "400xx"], "is no number"),
        (["--clip-seconds", "nan"], "no number of seconds"),
        (["--video", "missing.mp4"], "no video missing.mp4"),
        (["--model", "somewhere", "--bits", "4"], "do not go with --model"),
        (["--model", "/nonexistent", "--only", "load"], "/nonexistent"),
        (["--against", "mlx-vlm", "--only", "size,load"], "has nothing that mlx-vlm can be compared in"),
        (["--against", "ollama"], "'ollama' is none of"),
        (["--against", "mlx-vlm", "--peer-python", "/usr/bin/python3"], "expected PEER=PATH"),
        (["--json", "/nonexistent/report.json"], "no folder /nonexistent"),
    ],
)
def test_bad_input_is_refused_before_anything_is_measured(monkeypatch, capsys, options, problem):
    assert_refused(run(monkeypatch, capsys, "benchmark", "--quiet", *options), problem)


@pytest.mark.parametrize("python", ["/nonexistent/python", "/bin/false"])
def test_a_peer_that_cannot_be_run_is_refused_with_what_to_do(monkeypatch, capsys, folder, python):
    options = ["--only", "decode", "--peers-only", "--against", "mlx-vlm", "--peer-python", f"mlx-vlm={python}"]
    result = run(monkeypatch, capsys, "benchmark", *QUICK, "--folder", folder, *options)
    assert_refused(result, "--peer-python mlx-vlm=PATH")
