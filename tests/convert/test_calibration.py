"""Calibration as a whole: samples that judge are not those that teach, and the gain that the documents promise."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from mlx_smolvlm import load
from mlx_smolvlm.convert import QuantizationOptions, calibrate, convert_checkpoint, open_source
from mlx_smolvlm.convert.calibration import quality_data
from mlx_smolvlm.convert.calibration_data import score_samples
from mlx_smolvlm.convert.compare import CheckpointFacts, compare_models

sys.path.append(str(Path(__file__).parent.parent.parent / "examples" / "demo_model"))

from quantization import scene_samples


@pytest.mark.parametrize(("count", "held_out"), [(3, [0, 1, 2]), (4, [3]), (9, [3, 7])])
def test_every_fourth_sample_is_held_out(tmp_path, count, held_out):
    for number in range(count):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    data = quality_data(tmp_path, calibrating=True)
    assert [sample.name for sample in data.measurement] == [f"{number}.png" for number in held_out]
    kept = [number for number in range(count) if number not in held_out] or held_out
    assert [sample.name for sample in data.calibration] == [f"{number}.png" for number in kept]
    assert ("calibrated too" in data.description) == (kept == held_out)
    assert len(quality_data(tmp_path, calibrating=False).measurement) == count


def test_the_built_in_samples_that_judge_are_others():
    data = quality_data(None, calibrating=True)
    assert not {sample.text for sample in data.calibration} & {
        sample.text for sample in data.measurement if sample.text
    }


def divergences(source, samples, *folders):
    """Mean divergence of each folder's answers from the source's."""
    reference, processor = load(source, dtype="float32", fuse=False)
    scored, facts = score_samples(reference, processor, samples), CheckpointFacts("test", 0, 0)
    candidates = (load(folder, dtype="float32", fuse=False)[0] for folder in folders)
    return [compare_models(reference, model, scored, facts, facts).summary()["kl_mean"] for model in candidates]


@pytest.mark.slow
def test_calibrated_rounding_is_nearer_than_plain_rounding(trained_checkpoint, tmp_path):
    """On samples of the kind that it was calibrated on, but others; with as many bits."""
    options, data = QuantizationOptions(bits=3), quality_data(None, calibrating=True)
    plan, rounding = calibrate(open_source(trained_checkpoint), options, data.calibration[::3])
    convert_checkpoint(trained_checkpoint, tmp_path / "plain", quantization=options)
    convert_checkpoint(trained_checkpoint, tmp_path / "calibrated", plan=plan, rounding=rounding)
    folders = tmp_path / "plain", tmp_path / "calibrated"
    plain, calibrated = divergences(trained_checkpoint, data.measurement[::4], *folders)
    assert calibrated < 0.8 * plain


@pytest.mark.slow
def test_half_the_divergence_at_four_and_a_half_bits(trained_checkpoint, tmp_path):
    """The demo model in its own world: at most 0.6 of plain rounding's divergence, on scenes not calibrated on."""
    (tmp_path / "clips").mkdir()
    teaching, judging = (scene_samples(seed, 8, tmp_path / "clips") for seed in ("calibration", "test"))
    options = QuantizationOptions()
    plan, rounding = calibrate(open_source(trained_checkpoint), options, teaching, target_bpw=4.5)
    plain = convert_checkpoint(trained_checkpoint, tmp_path / "plain", quantization=options)
    calibrated = convert_checkpoint(trained_checkpoint, tmp_path / "calibrated", plan=plan, rounding=rounding)
    assert calibrated.size_bytes <= plain.size_bytes
    kl = divergences(trained_checkpoint, judging, plain.folder, calibrated.folder)
    assert kl[1] <= 0.6 * kl[0]
