"""Notes that are worth showing once: on the demo model, and on slow matrix products."""

import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..options import GenerationOptions
from .progress import counted
from .standard_streams import line_start, say
from .state import is_first

if TYPE_CHECKING:
    from ..api.generation import GenerationResponse

DEMO_NOTE = (
    "This is the embedded demo model (2.4 million parameters): it knows coloured shapes, short numbers and little\n"
    "else. For a real one: --model HuggingFaceTB/SmolVLM2-500M-Video-Instruct {example}"
)
SLOW_NOTE = (
    "note: MLX multiplies matrices without OpenBLAS here, many times slower than with it. Install and preload it:\n"
    "  apt-get install libopenblas0-pthread && export LD_PRELOAD=libopenblas.so.0"
)
SLOW_CHUNK = 32
_MAPS = Path("/proc/self/maps")
_FAST_LIBRARIES = re.compile(r"openblas|libmkl|libblis|libarmpl|nvpl_blas")
_OF_OTHERS = re.compile(r"(numpy|scipy)[^/]*(\.libs|_openblas)")  # their copies, which MLX does not use


def show_demo_note(example: str = "") -> None:
    """On stderr, the first time; `example` is what the command needs beside --model."""
    if is_first("demo-model"):
        say(DEMO_NOTE.format(example=example))


def show_unused_sampling(options: GenerationOptions) -> None:
    """On stderr: options that choose among tokens, where the likeliest is always taken."""
    if options.temperature:
        return
    given = [
        flag
        for flag, is_given in (
            ("--top-p", options.top_p != 1),
            ("--top-k", options.top_k != 0),
            ("--min-p", options.min_p != 0),
        )
        if is_given
    ]
    if given:
        say(f"note: without effect at --temperature 0, where the likeliest token is taken: {', '.join(given)}")


def show_missing_decoder(arguments: argparse.Namespace) -> None:
    """On stderr, unless `--quiet` is among the arguments: this system has no `--hardware-decoding`."""
    if arguments.hardware_decoding and sys.platform != "darwin" and not arguments.quiet:
        note = "--hardware-decoding uses VideoToolbox, which only Macs have; videos are decoded in software"
        say(f"{line_start()}note: {note}")


def show_cut(note: str) -> None:
    """On stderr, if a person reads it: programs have `finish_reason`, and expect nothing there."""
    if sys.stderr is not None and sys.stderr.isatty():
        say(note)


def cut_note(step: "GenerationResponse", max_tokens: int, context_length: int) -> str:
    """Why an answer that ended by "length" is not whole, and what to do; `step` is its last one."""
    cut = f"note: the answer is cut after {counted(step.completion_tokens, 'token')}"
    if context_length - step.prompt_tokens < max_tokens:
        return f"{cut}, at the end of the model's context; a shorter prompt leaves room for more"
    return f"{cut}, by --max-tokens; a higher number leaves room for more"


def show_speed_note() -> None:
    """On stderr, the first time that products are slow. Imports MLX."""
    if are_products_slow() and is_first("slow-products"):
        say(SLOW_NOTE)


def with_short_steps(options: GenerationOptions) -> GenerationOptions:
    """The options with few tokens of a prompt at a time where products are slow, since Ctrl-C waits for them."""
    if options.prefill_chunk <= SLOW_CHUNK or not are_products_slow():
        return options
    return replace(options, prefill_chunk=SLOW_CHUNK)


def are_products_slow(maps: Path | None = None) -> bool:
    """Whether MLX computes on Linux's CPU without a fast library. Imports MLX.

    `maps` lists the files that the process has loaded; None for the system's list.
    """
    if not sys.platform.startswith("linux"):
        return False
    import mlx.core as mx

    try:
        loaded = (maps or _MAPS).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    is_fast = any(_FAST_LIBRARIES.search(line) and not _OF_OTHERS.search(line) for line in loaded)
    return mx.default_device() == mx.cpu and not is_fast
