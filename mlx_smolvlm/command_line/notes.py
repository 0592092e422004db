"""Notes that are worth showing once: on the demo model, and on slow matrix products."""

import re
import sys
from pathlib import Path

from .progress import say
from .state import is_first

DEMO_NOTE = (
    "This is the embedded demo model (2.4 million parameters): it knows coloured shapes, short numbers and little\n"
    "else. For a real one: --model HuggingFaceTB/SmolVLM2-500M-Video-Instruct {example}"
)
SLOW_NOTE = (
    "note: MLX multiplies matrices without OpenBLAS here, many times slower than with it. Install and preload it:\n"
    "  apt-get install libopenblas0-pthread && export LD_PRELOAD=libopenblas.so.0"
)
_FAST_LIBRARIES = re.compile(r"openblas|libmkl|libblis|libarmpl|nvpl_blas")
_OF_OTHERS = re.compile(r"(numpy|scipy)[^/]*(\.libs|_openblas)")  # their copies, which MLX does not use


def show_demo_note(example: str = "") -> None:
    """On stderr, the first time; `example` is what the command needs beside --model."""
    if is_first("demo-model"):
        say(DEMO_NOTE.format(example=example))


def show_speed_note(maps: Path = Path("/proc/self/maps")) -> None:
    """On stderr, the first time that MLX computes on Linux's CPU without a fast library. Imports MLX.

    `maps` lists the files that the process has loaded.
    """
    if not sys.platform.startswith("linux"):
        return
    import mlx.core as mx

    try:
        loaded = maps.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    is_fast = any(_FAST_LIBRARIES.search(line) and not _OF_OTHERS.search(line) for line in loaded)
    if mx.default_device() == mx.cpu and not is_fast and is_first("slow-products"):
        say(SLOW_NOTE)
