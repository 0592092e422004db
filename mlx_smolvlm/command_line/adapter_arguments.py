"""`--adapter-path`: adapters for the commands that load a model."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..options import quoted


def add_adapter_argument(parser: argparse._ActionsContainer, use: str = "used without merging") -> None:
    """`--adapter-path`, repeatable; see `loading_options`."""
    parser.add_argument(
        "--adapter-path",
        action="append",
        metavar="PATH_OR_HUB_ID[=WEIGHT]",
        default=[],
        help=f"adapter (LoRA, DoRA; of PEFT, mlx-lm, mlx-vlm), {use}; repeatable",
    )


def adapter_sources(words: Sequence[str]) -> list[tuple[str, float]]:
    """Adapters with their weights: `PATH` or `PATH=0.7`. Raises ValueError if a weight is no number."""
    sources = []
    for word in words:
        path, equals, weight = word.rpartition("=")
        if not equals or Path(word).expanduser().exists():
            sources.append((word, 1.0))
            continue
        try:
            sources.append((path, float(weight)))
        except ValueError:
            raise ValueError(f"--adapter-path {quoted(word, 300)}: the weight {quoted(weight)} is no number") from None
    return sources


def loading_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keywords for `load`: `dtype`, and with adapters these. Without `--model`, it becomes the base that they name.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: adapters that cannot be read, or that name no base.
    """
    sources = adapter_sources(arguments.adapter_path)
    if not sources:
        return {"dtype": arguments.dtype}
    revision = None
    if arguments.model is None:
        from ..api.finding import base_of, open_adapters  # imports MLX

        adapters = [adapter for adapter, _ in open_adapters(sources)]
        arguments.model, revision = base_of(adapters, None, "--model")
    return {"dtype": arguments.dtype, "adapters": sources, "revision": revision}


def names_model(arguments: argparse.Namespace) -> bool:
    """Whether a model is named, by itself or by an adapter; otherwise the demo model answers."""
    return bool(arguments.model or arguments.adapter_path)


def model_name(arguments: argparse.Namespace) -> str:
    """What to call the model in reports: with its adapters, as they were given."""
    name = arguments.model or "demo"
    if arguments.adapter_path:  # MLX is imported already, since an adapter's base is read
        from ..api.loading import DEMO_MODEL

        name = "demo" if Path(name) == DEMO_MODEL else name
    return " + ".join([name, *arguments.adapter_path])
