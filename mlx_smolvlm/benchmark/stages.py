"""The stages of an answer, each on its own."""

from typing import Any

import mlx.nn as nn
from mlx.utils import tree_flatten
from PIL import Image

from ..model.smolvlm import SmolVLM
from .benchmark_run import QUESTION, BenchmarkRun
from .kernels import build_seconds, kernels_per_token
from .measurement import Measurement, copy_bandwidth, peak_over, reset_memory, timed


def start(run: BenchmarkRun) -> list[Measurement]:
    """The command, from its start to its end, for one token after a text."""
    return [_start(run, "text")]


def start_picture(run: BenchmarkRun) -> list[Measurement]:
    """The same after a picture."""
    return [_start(run, "picture", "--image", str(run.picture))]


def _start(run: BenchmarkRun, case: str, *options: str) -> Measurement:
    model = ["--model", str(run.checkpoint), "--dtype", run.settings.dtype]
    for path, weight in run.settings.adapters:
        model += ["--adapter-path", f"{path}={weight}"]
    command = [*model, "--prompt", QUESTION, "--max-tokens", "1", *options]
    spent = timed(lambda: run.run_module("mlx_smolvlm.generate", *command), run.settings.runs)
    return Measurement("start", f"command for one token, {case}", "s", spent)


def loading(run: BenchmarkRun) -> list[Measurement]:
    """Reading the weights, which the system holds in memory after the first time."""
    size_mb = weight_bytes(run.model) / 1e6
    run.forget_model()
    spent = timed(run.load, run.settings.runs)
    return [Measurement("load", "load", "s", spent, f"{size_mb:.0f} MB of weights")]


def preprocessing(run: BenchmarkRun) -> list[Measurement]:
    """From a photo to tiles."""
    processor = run.processor
    with Image.open(run.picture) as file:
        image = file.convert("RGB")
    tiles = processor("", [image]).media[0].num_tiles
    note = f"{image.width} x {image.height} photo, {tiles} tiles"
    runs = run.settings.runs
    return [
        Measurement("preprocessing", name, "s", timed(lambda source=source: processor("", [source]), runs), note)  # type: ignore[misc]
        for name, source in (("tiles of a decoded photo", image), ("tiles of a JPEG file", str(run.picture)))
    ]


def vision(run: BenchmarkRun) -> list[Measurement]:
    """One picture, from its file to the first token."""
    run.model  # noqa: B018 - loaded before memory is counted
    base = reset_memory()
    answers = [run.answer(QUESTION, images=[str(run.picture)], max_tokens=1) for _ in range(run.settings.runs + 1)][1:]
    tiles = answers[0].media[0].num_tiles
    note = f"{tiles} tiles, {answers[0].prompt_tokens} tokens"
    return [
        Measurement("vision", "encoding a tile", "s", [step.timing.vision / tiles for step in answers], note),
        Measurement("vision", "first token", "s", [step.timing.time_to_first_token for step in answers], note),
        Measurement("vision", "peak memory over the weights", "MB", [peak_over(base)], note),
    ]


def prefill(run: BenchmarkRun) -> list[Measurement]:
    """A long text, from the call to the first token."""
    prompt = run.long_prompt
    base = reset_memory()
    answers = [run.answer(prompt, max_tokens=1) for _ in range(run.settings.runs + 1)][1:]
    tokens = answers[0].prompt_tokens
    note = f"{tokens} tokens"
    return [
        Measurement("prefill", "prefill", "tokens/s", [tokens / step.timing.prefill for step in answers], note),
        Measurement("prefill", "first token", "s", [step.timing.time_to_first_token for step in answers], note),
        Measurement("prefill", "peak memory over the weights", "MB", [peak_over(base)], note),
    ]


def decode(run: BenchmarkRun) -> list[Measurement]:
    """Tokens after the first, and what bounds them: bytes to read, kernels to launch, Python."""
    settings, model = run.settings, run.model
    decoder = model.language_model
    prompt = run.long_prompt
    answers = [run.answer(prompt, max_tokens=settings.new_tokens) for _ in range(settings.runs + 1)][1:]
    speeds = [step.decode_tokens_per_second for step in answers]
    context = answers[0].prompt_tokens + answers[0].completion_tokens // 2
    moved = decoder_bytes(model) + cache_bytes(model, context)
    bandwidth = copy_bandwidth(settings.runs)
    ceiling = max(bandwidth)  # anything less is other work on the machine
    note = f"{answers[0].completion_tokens} tokens after {answers[0].prompt_tokens}"
    shares = [100 * moved * speed / 1e9 / ceiling for speed in speeds]
    return [
        Measurement("decode", "decode", "tokens/s", speeds, note),
        Measurement("decode", "bytes to read per token", "MB", [moved / 1e6], "weights and keys and values"),
        Measurement("decode", "copy bandwidth of the device", "GB/s", bandwidth, "read and written"),
        Measurement("decode", "share of that bandwidth", "%", shares, note),
        Measurement("decode", "kernels per token", "", [kernels_per_token(decoder)], "views left out, as on a GPU"),
        Measurement("decode", "building a step", "ms", [1e3 * s for s in build_seconds(decoder, 8 * settings.runs)]),
    ]


def weight_bytes(module: nn.Module) -> int:
    """Bytes of all parameters."""
    parameters: Any = tree_flatten(module.parameters())
    return sum(array.nbytes for _, array in parameters)


def decoder_bytes(model: SmolVLM) -> int:
    """Bytes of weights that a decoded token reads: all of the decoder but, where the head is not tied, embeddings."""
    embeddings = 0 if model.config.tie_word_embeddings else weight_bytes(model.language_model.embed_tokens)
    return weight_bytes(model.language_model) - embeddings


def cache_bytes(model: SmolVLM, context: int) -> int:
    """Bytes of keys and values of this many tokens."""
    text = model.config.text
    width = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim
    return width * context * model.language_model.norm.weight.itemsize
