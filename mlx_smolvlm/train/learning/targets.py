"""Names of layers, as PEFT takes them -> the layers to adapt."""

from collections.abc import Mapping, Sequence

import mlx.nn as nn

from ...model.adapters.changes import EMBEDDINGS, HEAD
from ...model.weights import hf_name
from ...options import did_you_mean, quoted
from ..recipe import TEXT_TARGETS

ALL_LINEAR = "all-linear"
TEXT, VISION, CONNECTOR = "language_model.", "vision_model.", "connector."
LINEAR = (nn.Linear, nn.QuantizedLinear)


def part_of_path(path: str) -> str:
    """`TEXT`, `VISION` or `CONNECTOR`, in which a layer or tensor is."""
    return next(part for part in (TEXT, VISION, CONNECTOR) if path.startswith(part))


def hf_path(path: str) -> str:
    """A layer's path under its Hugging Face name."""
    return hf_name(f"{path}.").removesuffix(".")


def default_targets(layers: Mapping[str, nn.Module], vision: bool, connector: bool) -> list[str]:
    """The projections of the text's layers, and all linear layers of the parts that are trained with it."""
    return [
        path
        for path, layer in layers.items()
        if isinstance(layer, LINEAR)
        and (
            (path.startswith(f"{TEXT}layers.") and path.rpartition(".")[2] in TEXT_TARGETS)
            or (vision and path.startswith(VISION))
            or (connector and path.startswith(CONNECTOR))
        )
    ]


def named_targets(layers: Mapping[str, nn.Module], names: Sequence[str]) -> list[str]:
    """The layers whose Hugging Face path is one of the names, or ends with a dot and one of them.

    `all-linear` stands for all linear layers but the head, as in PEFT.

    Args:
        layers: of the model, by path.
        names: of `--target`.

    Raises:
        ValueError: a name that matches no layer, or one of a kind that has no low-rank change.
    """
    chosen: list[str] = []
    for name in names:
        if name == ALL_LINEAR:
            chosen += [path for path, layer in layers.items() if isinstance(layer, LINEAR) and path != HEAD]
            continue
        found = [path for path in layers if hf_path(path) == name or hf_path(path).endswith(f".{name}")]
        if not found:
            ends = sorted({path.rpartition(".")[2] for path, layer in layers.items() if isinstance(layer, LINEAR)})
            advice = did_you_mean(name, ends) or f"layers are called {', '.join(ends)}"
            raise ValueError(f"--target {quoted(name)} matches no layer of the model; {advice}")
        wrong = next((path for path in found if not _can_be_adapted(path, layers[path])), None)
        if wrong is not None:
            kind = type(layers[wrong]).__name__
            raise ValueError(
                f"--target {quoted(name)} matches {hf_path(wrong)}, a {kind}, which has no low-rank change; "
                "name linear layers, embed_tokens or lm_head"
            )
        chosen += found
    return list(dict.fromkeys(chosen))


def _can_be_adapted(path: str, layer: nn.Module) -> bool:
    return isinstance(layer, LINEAR) or path == EMBEDDINGS
