"""Trains the demo model with the reference implementation, on a CPU.

    python examples/demo_model/train.py --out examples/demo_model/checkpoint --minutes 90

Each step sees three groups of scenes: single pictures (several questions each), pairs and clips.
The last third of the steps computes every other step with the decoder's weights rounded as 4-bit
quantization will round them, so that the quantized model answers like the original.
"""

import argparse
import itertools
import math
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from random import Random

import base
import numpy as np
import scenes
import torch
from PIL import Image
from torch import distributed
from transformers import AutoProcessor, SmolVLMForConditionalGeneration

GROUPS = {"short": 10, "long": 9, "pair": 3, "clip": 2}  # scenes per step and process; pictures by length
PEAK_LEARNING_RATE = 1.2e-3
IGNORED = -100  # label of tokens that are not an answer


def resized(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.resize((width, height), Image.Resampling.LANCZOS)


def fitted(image: Image.Image) -> Image.Image:
    """Longest side to LONGEST_EDGE, the other even: step one of the image processor."""
    scale = base.LONGEST_EDGE / max(image.size)
    sides = [base.LONGEST_EDGE if side == max(image.size) else int(side * scale) // 2 * 2 for side in image.size]
    return resized(image, *sides)


def tiles(image: Image.Image) -> list[Image.Image]:
    """2 x 2 tiles and the global image."""
    square = resized(fitted(image), base.LONGEST_EDGE, base.LONGEST_EDGE)
    boxes = [(x, y, x + base.TILE, y + base.TILE) for y in (0, base.TILE) for x in (0, base.TILE)]
    return [square.crop(box) for box in boxes] + [resized(square, base.TILE, base.TILE)]


def expansion(scene: scenes.Scene) -> str:
    """What the reference processor writes for the scene's media."""
    from num2words import num2words
    from transformers.models.smolvlm.processing_smolvlm import (
        DEFAULT_VIDEO_INTRO,
        _prompt_single_image,
        _prompt_split_image,
    )

    tokens = ("<fake_token_around_image>", "<image>", "<global-img>")
    if scene.kind != "clip":
        return _prompt_split_image(base.IMAGE_SEQ_LEN, 2, 2, *tokens) * len(scene.images)
    seconds = int(scene.duration)
    text = DEFAULT_VIDEO_INTRO.format(frame_count=num2words(len(scene.images)), video_duration=f"0:00:{seconds:02d}")
    for stamp in scene.timestamps:
        text += f"\nFrame from 00:{int(stamp):02d}:" + _prompt_single_image(base.IMAGE_SEQ_LEN, *tokens)
    return text + "\n\n"


def conversation(scene: scenes.Scene, rng: Random) -> tuple[str, list[tuple[int, int]]]:
    """The whole chat as text, and the character spans of the answers (their end token included)."""
    text = "<|im_start|>"
    if rng.random() < 0.15:
        text += f"System: {rng.choice(scenes.SYSTEM_PROMPTS)}<end_of_utterance>\n"
    spans = []
    for number, (_, question, answer) in enumerate(scene.turns):
        opening = "User:" if number == 0 and scene.kind != "clip" else "User: "
        opening += "" if number else expansion(scene)
        text += f"{opening}{question}<end_of_utterance>\nAssistant:"
        reply = f" {answer}<end_of_utterance>"
        spans.append((len(text), len(text) + len(reply)))
        text += reply + "\n"
    return text, spans


class Scenes:
    """An endless stream of steps: for each group (pixels uint8, input ids, labels)."""

    def __init__(self, tokenizer, seed: str):
        self.tokenizer, self.seed = tokenizer, seed

    def __iter__(self):
        for step in itertools.count():
            rng = Random(f"{self.seed}/{step}")
            pictures = [self.sample(rng, "picture") for _ in range(GROUPS["short"] + GROUPS["long"])]
            pictures.sort(key=lambda sample: len(sample[1]))
            yield [
                self.group(pictures[: GROUPS["short"]]),
                self.group(pictures[GROUPS["short"] :]),
                self.group([self.sample(rng, "pair") for _ in range(GROUPS["pair"])]),
                self.group([self.sample(rng, "clip") for _ in range(GROUPS["clip"])]),
            ]

    def sample(self, rng: Random, kind: str):
        """Pixels, input ids and labels of one random scene."""
        scene = scenes.scene(rng, kind)
        pixels = []
        for image in scene.images:
            pixels += [resized(fitted(image), base.TILE, base.TILE)] if kind == "clip" else tiles(image)
        text, spans = conversation(scene, rng)
        encoding = self.tokenizer.backend_tokenizer.encode(text)
        labels = [
            token if any(start <= first < end for start, end in spans) else IGNORED
            for token, (first, _) in zip(encoding.ids, encoding.offsets, strict=True)
        ]
        return pixels, encoding.ids, labels

    def group(self, samples: list):
        """Samples padded to one length."""
        length = max(len(ids) for _, ids, _ in samples)
        pad = self.tokenizer.pad_token_id
        return (
            torch.from_numpy(np.stack([np.asarray(image) for pixels, _, _ in samples for image in pixels])),
            torch.tensor([ids + [pad] * (length - len(ids)) for _, ids, _ in samples]),
            torch.tensor([labels + [IGNORED] * (length - len(labels)) for _, _, labels in samples]),
        )


def rounded(weight: torch.Tensor, bits: int = 4, group_size: int = 64) -> torch.Tensor:
    """The weight after MLX's affine quantization: one end of each group's range is met exactly."""
    groups = weight.reshape(-1, group_size)
    low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
    steps = 2**bits - 1
    scale = ((high - low) / steps).clamp(min=1e-7)
    low_is_edge = low.abs() > high.abs()
    scale = torch.where(low_is_edge, scale, -scale)
    edge = torch.where(low_is_edge, low, high)
    zero = torch.round(edge / scale)
    scale = torch.where(zero != 0, edge / zero, scale)
    bias = torch.where(zero != 0, edge, torch.zeros_like(edge))
    codes = torch.round((groups - bias) / scale).clamp(0, steps)
    return (codes * scale + bias).reshape(weight.shape)


@contextmanager
def rounded_decoder(network):
    """Within: decoder, embeddings and head hold rounded weights; gradients then go to the exact ones."""
    names = ("embed_tokens", "_proj", "lm_head")
    weights = [
        parameter
        for name, parameter in network.named_parameters()
        if parameter.dim() == 2 and "vision_model" not in name and any(part in name for part in names)
    ]
    exact = [weight.data for weight in weights]
    for weight in weights:
        weight.data = rounded(weight.data)
    yield
    for weight, data in zip(weights, exact, strict=True):
        weight.data = data


def losses(network, groups) -> list[torch.Tensor]:
    """Mean cross-entropy of each group's answers; the gradient is that of the mean over all answers."""
    out = []
    total = sum(int((labels != IGNORED).sum()) for _, _, labels in groups)
    image_token = network.config.image_token_id
    for pixels, input_ids, labels in groups:
        pixel_values = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        features = network.model.vision_model(pixel_values=pixel_values).last_hidden_state
        features = network.model.connector(features).flatten(0, 1)
        embeddings = network.get_input_embeddings()(input_ids)
        embeddings = embeddings.masked_scatter((input_ids == image_token).unsqueeze(-1), features)
        hidden = network.model.text_model(inputs_embeds=embeddings).last_hidden_state[:, :-1]
        answers = labels[:, 1:] != IGNORED
        loss = torch.nn.functional.cross_entropy(network.lm_head(hidden[answers]), labels[:, 1:][answers])
        (loss * (int(answers.sum()) / total)).backward()
        out.append(loss.detach())
    return out


def average_gradients(network, processes: int) -> None:
    """The mean over the processes, each of which saw scenes of its own."""
    flat = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
    distributed.all_reduce(flat)
    flat /= processes
    offset = 0
    for parameter in network.parameters():
        parameter.grad.copy_(flat[offset : offset + parameter.numel()].view_as(parameter))
        offset += parameter.numel()


def train(rank: int, arguments: argparse.Namespace) -> None:
    """One of `arguments.processes` workers on one core each; all hold the same weights."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{arguments.rendezvous}", rank=rank, world_size=arguments.processes
    )
    processor = base.processor()
    network = base.model(processor, arguments.seed)
    if arguments.init:
        processor = AutoProcessor.from_pretrained(arguments.init)
        network = SmolVLMForConditionalGeneration.from_pretrained(arguments.init, dtype=torch.float32)
    if rank == 0:
        print(f"{sum(p.numel() for p in network.parameters()):,} parameters", flush=True)
    decayed = [p for p in network.parameters() if p.dim() > 1]
    others = [p for p in network.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}],
        lr=PEAK_LEARNING_RATE,
        betas=(0.9, 0.98),
    )
    start, smooth = time.time(), None
    for step, groups in enumerate(Scenes(processor.tokenizer, f"{arguments.seed}/{rank}")):
        progress = torch.tensor(max(step / arguments.steps, (time.time() - start) / 60 / arguments.minutes))
        distributed.broadcast(progress, 0)
        progress = float(progress)
        if progress >= 1:
            break
        warm = min(1.0, (step + 1) / 300)
        for group in optimizer.param_groups:
            group["lr"] = PEAK_LEARNING_RATE * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        if progress > 2 / 3 and step % 2:
            with rounded_decoder(network):
                loss = losses(network, groups)
        else:
            loss = losses(network, groups)
        average_gradients(network, arguments.processes)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        smooth = [0.98 * s + 0.02 * float(now) for s, now in zip(smooth or map(float, loss), loss, strict=True)]
        if rank == 0 and step % 100 == 0:
            report = " ".join(f"{kind} {value:.4f}" for kind, value in zip(GROUPS, smooth, strict=True))
            print(f"step {step} {(time.time() - start) / 60:.1f} min {progress:.0%} {report}", flush=True)
        if rank == 0 and step % 250 == 249:
            base.save(network, processor, arguments.out)
    if rank == 0:
        base.save(network, processor, arguments.out)
        print(f"saved {arguments.out} after {step} steps")
    distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint (Hugging Face layout)")
    parser.add_argument("--init", type=Path, help="checkpoint to go on from, instead of random weights")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--minutes", type=float, default=90, help="end earlier after this long, the schedule adapted")
    parser.add_argument("--processes", type=int, default=2, help="one per core")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arguments.rendezvous = str(Path(folder) / "rendezvous")
        torch.multiprocessing.spawn(train, (arguments,), nprocs=arguments.processes)


if __name__ == "__main__":
    main()
