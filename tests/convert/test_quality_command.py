"""`--compare` and `--calibrate` on the command line."""

import json
import os
import re

import mlx.core as mx
import pytest
from PIL import Image
from support.command_lines import assert_refused, run
from support.editing import WEIGHTS, change_weights, copied

from mlx_smolvlm import load
from mlx_smolvlm.convert import QuantizationOptions, convert_checkpoint

pytestmark = pytest.mark.usefixtures("few_samples")
GROUPS = ("-q", "--q-group-size", "32")  # the tiny checkpoints are too narrow for groups of 64


@pytest.fixture
def convert(monkeypatch, capsys):
    """A function from options to the run's result."""
    return lambda *options: run(monkeypatch, capsys, "convert", *options)


@pytest.fixture
def pictures(tmp_path):
    """A folder of five pictures, with a question."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(5):
        Image.new("RGB", (64, 64), (40 * number, 90, 200 - 30 * number)).save(folder / f"{number}.png")
    (folder / "0.txt").write_text("What color is it?", encoding="utf-8")
    return folder


def test_a_checkpoint_compared_with_itself_is_equal(convert, trained_checkpoint):
    result = convert("--compare", trained_checkpoint, trained_checkpoint, "--json")
    quality = json.loads(result.out)
    assert (result.status, result.err) == (0, "")
    assert (quality["kl_mean"], quality["top_1_agreement"], quality["greedy_agreement"]) == (0, 1, 1)
    assert quality["measured_on"] == "built-in samples"
    assert (quality["mini_rows"], quality["mini_same_answers"], quality["mini_p"]) == (2, 1, 1)
    assert quality["mini_score"] == quality["reference_mini_score"] == 100
    assert not (trained_checkpoint / "quality.json").exists()  # not quantized, nothing to report


def test_a_damaged_layer_is_named_in_the_table(convert, trained_checkpoint, tmp_path):
    damaged = copied(trained_checkpoint, tmp_path / "damaged")
    weights = dict(mx.load(str(damaged / WEIGHTS)))
    name = "model.text_model.layers.1.self_attn.o_proj.weight"
    mx.save_safetensors(str(damaged / WEIGHTS), weights | {name: mx.zeros_like(weights[name])}, {"format": "pt"})
    result = convert("--compare", trained_checkpoint, damaged)
    assert "worst layer: language_model.layers.1.self_attn.o_proj, 100.0% off" in result.out
    assert re.search(r"mini suite, of 100 +100.0 \(34-100\)", result.out)


def test_the_report_stays_with_the_quantized_folder(convert, trained_checkpoint, tmp_path, pictures):
    out = tmp_path / "out"
    assert convert("--hf-path", trained_checkpoint, "--mlx-path", out, "-q").status == 0
    assert not (out / "quality.json").exists()
    result = convert("--compare", trained_checkpoint, out, "--data", pictures, "--mini-rows", "0")
    assert result.status == 0
    quality = json.loads((out / "quality.json").read_text(encoding="utf-8"))
    assert (quality["measured_on"], quality["num_samples"]) == ("pictures", 5)
    assert "mini suite" not in result.out and "mini_rows" not in quality
    assert f"{quality['kl_mean']:.4g}" in (out / "README.md").read_text(encoding="utf-8")
    assert str(tmp_path) not in (out / "quality.json").read_text(encoding="utf-8")  # no paths of this machine


@pytest.mark.parametrize(
    "options",
    [
        *(
            pytest.param(options, marks=pytest.mark.slow)
            for options in (
                (),
                ("--target-bpw", "4.5"),
                ("--data", "pictures"),
                ("--target-bpw", "4.5", "--data", "pictures"),
            )
        ),
    ],
    ids=" ".join,
)
def test_a_calibrated_folder_loads_and_carries_its_report(
    convert, trained_checkpoint, tmp_path, pictures, monkeypatch, options
):
    monkeypatch.chdir(tmp_path)
    result = convert("--hf-path", trained_checkpoint, "--mlx-path", "out", "-q", "--calibrate", *options)
    assert result.status == 0, result.err
    assert "KL divergence 0." in result.out
    if "--target-bpw" in options:
        line = r"decoder with embeddings and head: (.+) bits per weight \(--target-bpw 4.5\); the whole model: (.+)"
        reported = re.search(line, result.out)
        assert 4.2 < float(reported[1]) < 4.7 < float(reported[2])
    quality = json.loads((tmp_path / "out" / "quality.json").read_text(encoding="utf-8"))
    assert 0 < quality["kl_mean"] < 1
    if "--data" in options:
        assert (quality["measured_on"], quality["num_samples"]) == ("pictures, held out", 1)
    plain = convert_checkpoint(trained_checkpoint, "plain", quantization=QuantizationOptions())
    assert quality["size_bytes"] <= plain.size_bytes
    bits = {entry["bits"] for entry in _layers(tmp_path / "out").values() if "bits" in entry}
    assert (len(bits) > 1) == ("--target-bpw" in options)
    assert load(tmp_path / "out")


def _layers(folder):
    return json.loads((folder / "quantization_report.json").read_text(encoding="utf-8"))["layers"]


@pytest.mark.slow
def test_calibrating_twice_gives_the_same_bytes(convert, checkpoint, tmp_path):
    for name in ("a", "b"):
        options = ("--mlx-path", tmp_path / name, *GROUPS, "--calibrate", "--target-bpw", "5.5")
        assert convert("--hf-path", checkpoint("tied"), *options).status == 0
    assert (tmp_path / "a" / WEIGHTS).read_bytes() == (tmp_path / "b" / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_other_formats_are_rounded_to_nearest_beside(convert, checkpoint, tmp_path):
    options = (*GROUPS, "--q-connector", "mxfp8", "--q-vision", "8", "--calibrate")
    result = convert("--hf-path", checkpoint("smolvlm_256m"), "--mlx-path", tmp_path / "out", *options)
    assert result.status == 0, result.err
    assert {entry.get("mode") for entry in _layers(tmp_path / "out").values()} == {"affine", "mxfp8", None}


@pytest.mark.filterwarnings("default")
def test_float16_is_checked(convert, checkpoint, tmp_path):
    source = copied(checkpoint("smolvlm_256m"), tmp_path / "source")

    def amplify(weights):
        for name in ("gate_proj", "up_proj"):
            weights[f"model.text_model.layers.0.mlp.{name}.weight"] *= 1000

    change_weights(source, amplify)
    result = convert("--hf-path", source, "--mlx-path", tmp_path / "out", "--dtype", "float16")
    assert result.status == 0
    assert "warning: float16 may overflow: language_model.layers.0.mlp.down_proj has inputs of up to" in result.err


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--json",), "add --compare"),
        (("--plot", "x.png"), "add --compare"),
        (("--compare", "CHECKPOINT"), "expected 2 arguments"),
        (("--compare", "CHECKPOINT", "nowhere"), "no folder 'nowhere'"),
        (("--compare", "CHECKPOINT", "OTHER"), "only checkpoints of one geometry"),
        (("--compare", "CHECKPOINT", "CHECKPOINT", "-q"), "--compare converts nothing"),
        (("--compare", "CHECKPOINT", "CHECKPOINT", "--q-bits", "3", "--skip", "*.mlp.*"), "leave --q-bits, --skip out"),
        (
            ("--compare", "CHECKPOINT", "CHECKPOINT", "--mlx-path", "new", "--verbose"),
            "leave --mlx-path, --verbose out",
        ),
        (("--compare", "CHECKPOINT", "CHECKPOINT", "--hf-path", "CHECKPOINT"), "--compare converts nothing"),
        (("--compare", "CHECKPOINT", "CHECKPOINT", "--data", "empty"), "empty holds no images"),
        (("--compare", "CHECKPOINT", "CHECKPOINT", "--data", "nowhere"), "no folder 'nowhere'"),
        (("--compare", "CHECKPOINT", "CHECKPOINT", "--data", "broken"), "broken.png: "),
        (("--hf-path", "CHECKPOINT", "--calibrate"), "add -q"),
        (("--hf-path", "CHECKPOINT", "-q", "--target-bpw", "4"), "add --calibrate"),
        (("--hf-path", "CHECKPOINT", "-q", "--data", "broken"), "--data is for measuring"),
        (("--hf-path", "CHECKPOINT", "-q", "--calibrate", "--q-mode", "mxfp4"), "leave --q-mode mxfp4 out"),
        (("--hf-path", "CHECKPOINT", "-q", "--calibrate", "--target-bpw", "4.5", "--q-bits", "4"), "leave --q-bits"),
        (("--hf-path", "CHECKPOINT", *GROUPS, "--calibrate", "--target-bpw", "1.5"), "4 to 10 bits per weight"),
        (("--hf-path", "CHECKPOINT", *GROUPS, "--calibrate", "--target-bpw", "nan"), "target-bpw is nan"),
        (
            ("--hf-path", "CHECKPOINT", "-q", "--calibrate", "--target-bpw", "4"),
            "nothing of decoder and embeddings would",
        ),
        (
            ("--hf-path", "CHECKPOINT", "-q", "--calibrate"),
            "--q-group-size 32 would fit, or --allow-unquantized goes on",
        ),
        (("--hf-path", "CHECKPOINT", "-q", "--calibrate", "--data", "empty"), "empty holds no images"),
        (("--hf-path", "CHECKPOINT", "-q", "--calibrate", "--data", "broken"), "broken.png: "),
        (("--hf-path", "CHECKPOINT", "-q", "--calibrate", "--adapter-path", "x"), "merge the adapter"),
        (("--hf-path", "CHECKPOINT", "-q", "--calibrate", "--mlx-path", "empty/.."), "exists already"),
    ],
)
def test_faulty_options_are_refused_with_nothing_written(convert, checkpoint, tmp_path, monkeypatch, options, problem):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "broken.png").write_bytes(b"no picture")
    folders = {"CHECKPOINT": checkpoint("smolvlm_256m"), "OTHER": checkpoint("idefics3")}
    assert_refused(convert(*(folders.get(option, option) for option in options)), problem)
    assert sorted(os.listdir(tmp_path)) == ["broken", "empty"]


@pytest.mark.parametrize("options", [("-q", "--calibrate"), ("--dtype", "float16")])
def test_pictures_are_read_before_anything_is_written(convert, trained_checkpoint, tmp_path, pictures, options):
    (pictures / "3.png").write_bytes(b"no picture")  # one that would be held out
    out = tmp_path / "out"
    result = convert("--hf-path", trained_checkpoint, "--mlx-path", out, "--data", pictures, *options)
    assert_refused(result, "3.png: ")
    assert not out.exists()


@pytest.mark.slow
def test_a_comparison_keeps_the_measure_of_the_calibration(convert, trained_checkpoint, tmp_path, pictures):
    out = tmp_path / "out"
    assert convert("--hf-path", trained_checkpoint, "--mlx-path", out, "-q", "--calibrate").status == 0
    before = json.loads((out / "quality.json").read_text(encoding="utf-8"))
    (pictures / "more").mkdir()
    (pictures / "0.png").rename(pictures / "more" / "0.png")
    result = convert("--compare", trained_checkpoint, out, "--data", pictures / "more")
    assert "quality.json also keeps: built-in samples, 4 samples, against checkpoint" in result.err
    after = json.loads((out / "quality.json").read_text(encoding="utf-8"))
    assert list(after.pop("other_measures")) == ["more, 1 sample, against checkpoint"]
    assert after == before
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "| measured on | built-in samples |" in card
    assert "Also, on more, 1 sample, against checkpoint:" in card


def test_a_quantized_checkpoint_is_not_calibrated(convert, checkpoint, tmp_path):
    convert_checkpoint(checkpoint("tied"), tmp_path / "four", quantization=QuantizationOptions(4, 32))
    result = convert("--hf-path", tmp_path / "four", "--mlx-path", tmp_path / "out", "-q", "--calibrate")
    assert_refused(result, "is quantized already: its full precision is gone")
