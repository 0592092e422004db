"""The stages of an answer, each on its own."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import mlx.nn as nn
from mlx.utils import tree_flatten
from PIL import Image

from ..model.smolvlm import SmolVLM
from .benchmark_run import QUESTION, BenchmarkRun
from .kernels import build_seconds, kernels_per_token
from .measurement import Measurement, copy_bandwidth, peak_over, reset_memory


def start(run: BenchmarkRun) -> Iterator[Measurement]:
    """The command, from its start to its end, for one token after a text."""
    yield _start(run, "text")


def start_picture(run: BenchmarkRun) -> Iterator[Measurement]:
    """The same after a picture."""
    yield _start(run, "picture", "--image", str(run.picture))


def _start(run: BenchmarkRun, case: str, *options: str) -> Measurement:
    model = ["--model", str(run.checkpoint), "--dtype", run.settings.dtype]
    for path, weight in run.settings.adapters:
        model += ["--adapter-path", f"{path}={weight}"]
    command = [*model, "--prompt", QUESTION, "--max-tokens", "1", *options]
    name = f"command for one token, {case}"
    spent = run.timed(f"start: {name}", lambda: run.run_module("mlx_smolvlm.generate", *command))
    return Measurement("start", name, "s", spent)


def loading(run: BenchmarkRun) -> Iterator[Measurement]:
    """Reading the weights, which the system holds in memory after the first time."""
    size_mb = weight_bytes(run.model) / 1e6
    run.forget_model()
    yield Measurement("load", "load", "s", run.timed("load", run.load), f"{size_mb:.0f} MB of weights")


def preprocessing(run: BenchmarkRun) -> Iterator[Measurement]:
    """From a photo to tiles."""
    processor = run.processor
    with Image.open(run.picture) as file:
        image = file.convert("RGB")
    tiles = processor("", [image]).media[0].num_tiles
    note = f"{image.width} x {image.height} photo, {tiles} tiles"
    for name, source in (("tiles of a decoded photo", image), ("tiles of a JPEG file", str(run.picture))):
        spent = run.timed(f"preprocessing: {name}", partial(processor, "", [source]))
        yield Measurement("preprocessing", name, "s", spent, note)


def vision(run: BenchmarkRun) -> Iterator[Measurement]:
    """One picture, from its file to the first token."""
    run.model  # noqa: B018 - loaded before memory is counted
    base = reset_memory()
    answers = run.repeated("vision", lambda: run.answer(QUESTION, images=[str(run.picture)], max_tokens=1))
    tiles = answers[0].media[0].num_tiles
    note = f"{tiles} tiles, {answers[0].prompt_tokens} tokens"
    yield Measurement("vision", "encoding a tile", "s", [step.timing.vision / tiles for step in answers], note)
    yield Measurement("vision", "first token", "s", [step.timing.time_to_first_token for step in answers], note)
    yield Measurement("vision", "peak memory over the weights", "MB", [peak_over(base)], note)


def prefill(run: BenchmarkRun) -> Iterator[Measurement]:
    """A long text, from the call to the first token."""
    prompt = run.long_prompt
    base = reset_memory()
    answers = run.repeated("prefill", lambda: run.answer(prompt, max_tokens=1))
    tokens = answers[0].prompt_tokens
    note = f"{tokens} tokens"
    yield Measurement("prefill", "prefill", "tokens/s", [tokens / step.timing.prefill for step in answers], note)
    yield Measurement("prefill", "first token", "s", [step.timing.time_to_first_token for step in answers], note)
    yield Measurement("prefill", "peak memory over the weights", "MB", [peak_over(base)], note)


def decode(run: BenchmarkRun) -> Iterator[Measurement]:
    """Tokens after the first, and what bounds them: bytes to read, kernels to launch, Python."""
    settings, model = run.settings, run.model
    decoder = model.language_model
    prompt = run.long_prompt
    answers = run.repeated("decode", lambda: run.answer(prompt, max_tokens=settings.new_tokens))
    speeds = [step.decode_tokens_per_second for step in answers]
    note = f"{answers[0].completion_tokens} tokens after {answers[0].prompt_tokens}"
    yield Measurement("decode", "decode", "tokens/s", speeds, note)
    context = answers[0].prompt_tokens + answers[0].completion_tokens // 2
    moved = decoder_bytes(model) + cache_bytes(model, context)
    bandwidth = copy_bandwidth(settings.runs)
    ceiling = max(bandwidth)  # anything less is other work on the machine
    shares = [100 * moved * speed / 1e9 / ceiling for speed in speeds]
    yield Measurement("decode", "bytes to read per token", "MB", [moved / 1e6], "weights and keys and values")
    yield Measurement("decode", "copy bandwidth of the device", "GB/s", bandwidth, "read and written")
    yield Measurement("decode", "share of that bandwidth", "%", shares, note)
    yield Measurement("decode", "kernels per token", "", [kernels_per_token(decoder)], "views left out, as on a GPU")
    building = build_seconds(decoder, 8 * settings.runs)
    yield Measurement("decode", "building a step", "ms", [1e3 * seconds for seconds in building])


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
