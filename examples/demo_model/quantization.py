"""What quantization costs the demo model: bits against divergence and accuracy, for each way of rounding.

    python examples/demo_model/quantization.py --samples 100

Divergence and accuracy are measured on the scenes of `evaluate.py`, which took part neither in training nor in
calibration. "calibrated" uses the built-in samples, of a world that the demo model does not know, and "on
scenes" its own world, as `--data` would.
"""

import argparse
import tempfile
from collections.abc import Sequence
from math import prod
from pathlib import Path
from random import Random

import mlx.core as mx
import numpy as np
import scenes
from evaluate import with_media

from mlx_smolvlm import generate_text, load
from mlx_smolvlm.convert import ConversionReport, QuantizationOptions, convert_checkpoint, open_source
from mlx_smolvlm.convert.calibration import calibrate
from mlx_smolvlm.convert.calibration_data import Sample, answer_logits, score_samples
from mlx_smolvlm.convert.compare import CheckpointFacts, Comparison
from mlx_smolvlm.convert.synthetic_samples import built_in_samples

CHECKPOINT = Path(__file__).parent / "checkpoint"
CALIBRATION_SCENES = 8  # of each task
PLAIN = (8, 5, 4, 3, 2)  # bits
RECIPES = ("mixed_4_6", "mixed_3_6")
CALIBRATED = (4, 3, 2)  # bits
TARGETS = (4.5, 3.5, 3.0)  # bits per weight


def scene_of(name: str, seed: str) -> scenes.Scene:
    """The scene of a sample's name, "task number"."""
    task, number = name.split()
    return scenes.scene_for(Random(f"{seed}/{task}/{number}"), task)


def scene_samples(seed: str, per_task: int, folder: Path) -> list[Sample]:
    """Scenes of every task as samples without answers; clips are written below `folder`."""
    samples = []
    for name in (f"{task} {number}" for task in scenes.QUESTIONS for number in range(per_task)):
        place = folder / f"{seed} {name}"
        place.mkdir()
        samples.append(Sample(name, with_media(scene_of(name, seed), place)))
    return samples


def bits_per_weight(report: ConversionReport) -> float:
    """Mean over the quantized layers, with their scales and biases of 16 bits."""
    formats = {path: layer_format for path, layer_format in report.plan.items() if layer_format}
    bits = sum(prod(report.shapes[path]) * (f.bits + 32 / f.group_size) for path, f in formats.items())
    return bits / sum(prod(report.shapes[path]) for path in formats)


class Judge:
    """Measures candidates on fresh scenes against the checkpoint in full precision and against the truth."""

    def __init__(self, per_task: int, folder: Path):
        self.model, self.processor = load(CHECKPOINT, dtype="float32")
        samples = scene_samples("evaluation", per_task, folder)
        self.truths = [scene_of(sample.name, "evaluation").turns[0][2] for sample in samples]
        self.samples = score_samples(self.model, self.processor, samples)
        self.messages = [sample.messages for sample in samples]
        self.logits = [np.array(answer_logits(self.model, sample)) for sample in self.samples]
        self.answers = [self.processor.decode(sample.answer_ids).strip() for sample in self.samples]

    def row(self, name: str, folder: Path, bits: float) -> str:
        """A line of the table."""
        if (folder / "quantization_report.json").exists():  # the same numbers, many times quicker on a CPU
            plain = folder.with_name(f"{folder.name}, dequantized")
            convert_checkpoint(folder, plain, dequantize=True, dtype="float32")
            folder = plain
        candidate, processor = load(folder, dtype="float32")
        facts = CheckpointFacts(name, 0, bits)
        comparison = Comparison(facts, facts)
        right: dict[str, list[bool]] = {}
        for number, (sample, logits) in enumerate(zip(self.samples, self.logits, strict=True)):
            comparison.add(mx.array(logits), answer_logits(candidate, sample), sample)
            answer = self.answers[number]
            if not all(comparison.agrees[-1]):  # otherwise it repeats the reference's greedy answer
                answer = generate_text(candidate, processor, self.messages[number], max_tokens=48).strip()
            right.setdefault(sample.name.split()[0], []).append(answer == self.truths[number])
        kl = np.concatenate(comparison.kl)
        shares = {task: float(np.mean(answers)) for task, answers in right.items()}
        least = min(shares, key=lambda task: shares[task])
        mean = np.mean(list(shares.values()))
        return (
            f"| {name} | {bits:.2f} | {kl.mean():.6f} | {np.percentile(kl, 99):.5f} "
            f"| {comparison.greedy_agreement:.1%} | {mean:.1%} | {least} {shares[least]:.0%} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=100, help="scenes per task")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        judge = Judge(arguments.samples, folder)
        calibration = {
            "calibrated": built_in_samples("calibration"),
            "calibrated on scenes": scene_samples("calibration", CALIBRATION_SCENES, folder),
        }
        print("| rounding | bits per weight | KL, nats | 99th percentile | greedy agreement | accuracy | least |")
        print("|---|---|---|---|---|---|---|", flush=True)
        print(judge.row("none (bfloat16)", CHECKPOINT, 16), flush=True)

        def convert(name: str, options: QuantizationOptions, samples: Sequence[Sample] = (), target=None) -> None:
            plan, rounding = None, None
            if samples:
                plan, rounding = calibrate(open_source(CHECKPOINT), options, samples, target_bpw=target)
            out = folder / name.replace(" ", "-")
            quantization = None if plan else options
            report = convert_checkpoint(CHECKPOINT, out, quantization=quantization, plan=plan, rounding=rounding)
            print(judge.row(name, out, bits_per_weight(report)), flush=True)

        for bits in PLAIN:
            convert(f"plain, {bits} bits", QuantizationOptions(bits=bits))
        convert("plain, 4 bits in groups of 32", QuantizationOptions(group_size=32))
        for recipe in RECIPES:
            convert(f"recipe {recipe}", QuantizationOptions(recipe=recipe))
        for name, samples in calibration.items():
            for bits in CALIBRATED:
                convert(f"{name}, {bits} bits", QuantizationOptions(bits=bits), samples)
            convert(f"{name}, 4 bits in groups of 32", QuantizationOptions(group_size=32), samples)
            for target in TARGETS:
                convert(f"{name}, target {target:g}", QuantizationOptions(), samples, target)


if __name__ == "__main__":
    main()
