"""The model card and the report in every converted folder, and uploading."""

import json
from pathlib import Path

import huggingface_hub
import pytest
from support.command_lines import assert_refused, run
from support.editing import copied

from mlx_smolvlm.convert import LayerFormat, QuantizationOptions, convert_checkpoint
from mlx_smolvlm.convert.card import refresh_quality


@pytest.fixture
def source(checkpoint, tmp_path):
    """A folder as the Hub has it, with its own card."""
    folder = copied(checkpoint("smolvlm2_2b"), tmp_path / "SmolVLM2-tiny")
    card = "---\nlibrary_name: transformers\nlicense: apache-2.0\nbase_model:\n- owner/older\n---\n\n# Card\n"
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


@pytest.fixture
def convert(monkeypatch, capsys, source, tmp_path):
    """A function from options to the run's result; the target is tmp_path / "SmolVLM2-tiny-4bit"."""
    paths = ("--hf-path", source, "--mlx-path", tmp_path / "SmolVLM2-tiny-4bit")
    return lambda *options: run(monkeypatch, capsys, "convert", *paths, *options)


def test_the_card_says_what_was_done_and_how_to_use_it(convert, tmp_path):
    assert convert("-q", "--q-vision", "nvfp4").status == 0
    card = (tmp_path / "SmolVLM2-tiny-4bit" / "README.md").read_text(encoding="utf-8")
    head, text = card.removeprefix("---\n").split("---\n", 1)
    assert head.splitlines() == [
        "license: apache-2.0",
        "library_name: mlx",
        "pipeline_tag: image-text-to-text",
        "tags:",
        "- mlx",
        "- smolvlm",
    ]
    assert (
        "    python -m mlx_smolvlm.convert --hf-path SmolVLM2-tiny --mlx-path SmolVLM2-tiny-4bit -q --q-vision nvfp4\n"
        in text
    )
    assert "- decoder: 12 layers: 4 bits in groups of 64\n" in text
    assert "- decoder: 2 layers: not quantized, its width 96 is no multiple of the group size 64\n" in text
    assert "Not measured." in text
    for program in ("python -m mlx_smolvlm.generate --model ", "python -m mlx_vlm.generate --model ", "loadModel(id: "):
        assert program in text
    assert str(tmp_path) not in card  # nobody else's business


def test_the_base_model_is_named_across_conversions(monkeypatch, checkpoint, tmp_path):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(checkpoint("smolvlm2_2b")))
    convert_checkpoint("owner/SmolVLM2", tmp_path / "eight", quantization=QuantizationOptions(8, 32))
    convert_checkpoint(tmp_path / "eight", tmp_path / "four", quantization=QuantizationOptions(4, 32))
    for name in ("eight", "four"):
        card = (tmp_path / name / "README.md").read_text(encoding="utf-8")
        assert card.startswith("---\nbase_model: owner/SmolVLM2\n")


def test_a_quality_report_becomes_a_table(convert, tmp_path):
    convert()
    folder = tmp_path / "SmolVLM2-tiny-4bit"
    quality = {"perplexity": 3.14159265, "top_1_agreement": 0.995, "layers": {"a": 1}}
    (folder / "quality.json").write_text(json.dumps(quality), encoding="utf-8")
    for _ in range(2):
        refresh_quality(folder)
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert "| measure | value |\n|---|---|\n| perplexity | 3.142 |\n| top 1 agreement | 0.995 |\n<!--" in card
        assert "Not measured" not in card


def test_a_quality_report_of_the_source_is_not_taken_over(convert, source, tmp_path):
    for name in ("quality.json", "quantization_report.json"):
        (source / name).write_text('{"perplexity": 1.0}', encoding="utf-8")
    convert()
    folder = tmp_path / "SmolVLM2-tiny-4bit"
    assert not (folder / "quality.json").exists()
    assert "Not measured." in (folder / "README.md").read_text(encoding="utf-8")
    assert "layers" in json.loads((folder / "quantization_report.json").read_text(encoding="utf-8"))


def test_the_report_has_every_layer(source, tmp_path):
    options = QuantizationOptions(group_size=32, parts={"vision": LayerFormat(8, 32)}, skip=["*.lm_head"])
    report = convert_checkpoint(source, tmp_path / "out", quantization=options, allow_unquantized=True)
    content = json.loads((tmp_path / "out" / "quantization_report.json").read_text(encoding="utf-8"))
    assert content == report.as_json()
    layers = content["layers"]
    assert len(layers) == 2 + 2 * 7 + 1 + 1 + 2 * 6
    assert layers["language_model.lm_head"] == {"shape": [443, 64], "reason": "skipped by *.lm_head"}
    assert layers["language_model.layers.0.mlp.up_proj"] == {
        "shape": [96, 64],
        "group_size": 32,
        "bits": 4,
        "mode": "affine",
    }
    assert layers["connector.modality_projection.proj"]["reason"] == "its part was not asked for"
    assert content["size_bytes"] == report.size_bytes


def test_verbose_names_every_layer(convert):
    lines = convert("-q", "--verbose").out.splitlines()
    assert "language_model.layers.0.self_attn.q_proj: 4 bits in groups of 64" in lines
    assert "vision_model.encoder.layers.0.mlp.fc1: not quantized, its part was not asked for" in lines


def test_an_upload_takes_the_folder_as_it_is(convert, tmp_path, monkeypatch):
    done = []

    class Api:
        def create_repo(self, repo_id, exist_ok):
            done.append((repo_id, exist_ok))

        def upload_folder(self, folder_path, repo_id):
            done.append((Path(folder_path).name, repo_id))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    result = convert("-q", "--upload-repo", "owner/tiny-4bit")
    assert (result.status, done) == (0, [("owner/tiny-4bit", True), ("SmolVLM2-tiny-4bit", "owner/tiny-4bit")])
    card = (tmp_path / "SmolVLM2-tiny-4bit" / "README.md").read_text(encoding="utf-8")
    assert "python -m mlx_smolvlm.generate --model owner/tiny-4bit " in card


def test_a_repository_that_cannot_be_is_refused_before_the_work(convert, tmp_path):
    assert_refused(convert("--upload-repo", "a/b/c"), "a/b/c")
    assert not (tmp_path / "SmolVLM2-tiny-4bit").exists()
