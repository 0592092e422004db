"""What was measured, as text, JSON and a plot."""

import json
import sys

import pytest

from mlx_smolvlm.command_line.drawings import check_plot
from mlx_smolvlm.convert.card import quality_table
from mlx_smolvlm.convert.compare import CheckpointFacts, Comparison
from mlx_smolvlm.convert.quality import quality_json, quality_text, write_plot, write_quality


@pytest.fixture
def quality():
    """The measures of a made-up comparison."""
    comparison = Comparison(
        CheckpointFacts("original", 10_000_000, 16.0),
        CheckpointFacts("small", 2_500_000, 4.0),
        kl=[[0.5] + [0.25] * 9, [0.0]],
        agrees=[[True] * 5 + [False] * 5, [True]],
        reference_nll=[0.0] * 11,
        candidate_nll=[0.0] * 11,
        layer_errors={
            "vision_model.encoder.layers.2.mlp.fc1": 0.125,
            "vision_model.encoder.layers.10.mlp.fc1": 0.25,
            "language_model.layers.0.mlp.up_proj": 0.0625,
            "connector.modality_projection.proj": 0.0,
        },
    )
    return quality_json(comparison, "pictures", "python -m mlx_smolvlm.convert --compare a b")


def test_the_table_holds_the_measures(quality):
    text = quality_text(quality)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "measured on pictures: 2 samples, 11 answer tokens" in lines
    assert "size, MB 10.0 2.5" in lines
    assert "bits per weight 16.00 4.00" in lines
    assert "0.250000 0.475000 0.250000 0.250000 0.250000" in lines
    assert "top-1 agreement 54.5%" in lines
    assert "greedy agreement 75.0%" in lines
    assert lines[-3:] == [
        "worst layer: vision_model.encoder.layers.10.mlp.fc1, 25.0% off",
        "then: vision_model.encoder.layers.2.mlp.fc1, 12.5% off",
        "then: language_model.layers.0.mlp.up_proj, 6.2% off",
    ]


def test_the_file_holds_all_of_it(quality, tmp_path):
    write_quality(tmp_path, quality)
    assert json.loads((tmp_path / "quality.json").read_text(encoding="utf-8")) == quality
    assert [file.name for file in tmp_path.iterdir()] == ["quality.json"]


def test_a_file_that_cannot_be_written_whole_leaves_the_old_one(quality, tmp_path):
    write_quality(tmp_path, quality)
    old = (tmp_path / "quality.json").read_bytes()
    with pytest.raises(TypeError):
        write_quality(tmp_path, quality | {"bad": object()})
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("quality.json", old)]


def test_a_measure_is_kept_beside_a_better_one_and_replaced_by_one_of_its_name(quality, tmp_path):
    """A comparison on three pictures once replaced that of a calibration."""

    def content():
        return json.loads((tmp_path / "quality.json").read_text(encoding="utf-8"))

    built_in = quality | {"measured_on": "built-in samples", "num_samples": 24, "num_answer_tokens": 700}
    name, better = "pictures, 2 samples, against original", "built-in samples, 24 samples, against original"
    assert write_quality(tmp_path, built_in) == []
    assert write_quality(tmp_path, quality) == [better]
    assert content() == built_in | {"other_measures": {name: quality}}
    newer = quality | {"kl_mean": 0.125}
    assert write_quality(tmp_path, newer) == [better]
    assert content() == built_in | {"other_measures": {name: newer}}
    assert write_quality(tmp_path, quality | {"computed_in": "bfloat16"}) == [better, name]
    (tmp_path / "quality.json").unlink()
    for measure in (built_in, newer):
        write_quality(tmp_path, measure)
    many = quality | {"measured_on": "album", "num_answer_tokens": 9000}
    assert write_quality(tmp_path, many) == [better, name]
    assert content() == many | {"other_measures": {better: built_in, name: newer}}
    table = quality_table(content())
    assert (
        table.index("| measured on | album |") < table.index(f"Also, on {better}:") < table.index(f"Also, on {name}:")
    )


@pytest.mark.parametrize("content", ["old", "[]", '{"score": 1}', '{"num_answer_tokens": "3"}'])
def test_a_file_of_others_is_not_replaced(quality, tmp_path, content):
    (tmp_path / "quality.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"quality\.json"):
        write_quality(tmp_path, quality)
    assert (tmp_path / "quality.json").read_text(encoding="utf-8") == content


def test_a_plot_needs_matplotlib(quality, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'mlx-smolvlm\[plot\]'"):
        check_plot(tmp_path / "plot.png")


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_plot_is_drawn(quality, tmp_path, ending):
    pytest.importorskip("matplotlib", reason="the extra 'plot' is not installed")
    file = tmp_path / f"plot.{ending}"
    check_plot(file)
    write_plot(quality, file)
    assert file.stat().st_size > 5_000


def test_plots_that_could_not_be_written_are_refused_before_the_work(tmp_path):
    pytest.importorskip("matplotlib", reason="the extra 'plot' is not installed")
    with pytest.raises(ValueError, match=r"no image format is called '.jpx'"):
        check_plot(tmp_path / "plot.jpx")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        check_plot(tmp_path / "missing" / "plot.png")
