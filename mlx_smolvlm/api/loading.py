"""Folder or Hub id -> (model, processor). Weights load completely or not at all."""

import re
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..media.reporting import report
from ..model.checkpoint_folder import check_folder, refused_file
from ..model.config import ModelConfig, read_model_config
from ..model.smolvlm import SmolVLM
from ..model.weights import load_tensors, read_index
from ..options import quoted
from ..processor.processor import Processor, load_processor
from .hub import download

DEMO_MODEL = Path(__file__).parent.parent / "demo" / "model"
"""Folder of the embedded demo model: a tiny SmolVLM that knows coloured shapes, short numbers and little else."""

DTYPES = {"bfloat16": mx.bfloat16, "float16": mx.float16, "float32": mx.float32}
_LM_HEAD = "language_model.lm_head.weight"
_EMBEDDINGS = "language_model.embed_tokens.weight"


def default_dtype() -> str:
    """bfloat16 on a GPU; float32 on the CPU, whose bfloat16 kernels are slow and coarse."""
    return "bfloat16" if mx.default_device() == mx.gpu else "float32"


def load(
    path_or_hub_id: str | Path, *, dtype: str | None = None, revision: str | None = None, fuse: bool = True
) -> tuple[SmolVLM, Processor]:
    """Load a checkpoint of the family.

    Args:
        path_or_hub_id: a folder, in Hugging Face layout or converted (by this project or by mlx-vlm, quantized
            or not), or the id of a repository on the Hugging Face Hub, downloaded on first use.
        dtype: "bfloat16", "float16" or "float32"; None for `default_dtype()`. Quantized layers keep their codes,
            and compute in this type.
        revision: branch, tag or commit on the Hub.
        fuse: join matrices for speed (see `LanguageModel.fuse`). Layers are at their paths in the files either way, and
            what is done to them takes effect; False saves the work where all of them are about to change.

    Returns:
        The model, every parameter evaluated (so that any thread may use it), and its processor.

    Raises:
        FileNotFoundError: no such folder, or files are missing from it.
        ValueError: files that are damaged, contradictory or of another kind of model.
        ConnectionError: the Hub cannot be reached or refuses.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype is {quoted(dtype)}, expected one of {', '.join(DTYPES)}")
    report("loading the model")
    folder = find_checkpoint(path_or_hub_id, revision=revision)
    check_folder(folder)
    report("loading the model")
    config = read_model_config(folder)
    processor = load_processor(folder, config)
    return load_model(folder, config, dtype or default_dtype(), fuse=fuse), processor


def find_checkpoint(path_or_hub_id: str | Path, *, revision: str | None = None) -> Path:
    """The local folder of a checkpoint, downloading it from the Hub if need be."""
    if not str(path_or_hub_id):
        raise FileNotFoundError("the model's name is empty; expected a folder or a Hub id (owner/name)")
    try:
        folder = Path(path_or_hub_id).expanduser()
    except RuntimeError as error:  # ~ without a home folder
        raise FileNotFoundError(f"no folder {quoted(str(path_or_hub_id), 300)}: {error}") from None
    if folder.is_dir():
        return folder
    if folder.exists():
        raise FileNotFoundError(refused_file(folder))
    name = str(path_or_hub_id)
    if Path(name).suffix.lower() == ".gguf":
        raise FileNotFoundError(f"no file {quoted(name, 300)}; and GGUF files are read by llama.cpp, not here")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name):
        raise FileNotFoundError(f"no folder {quoted(name, 300)}, and that is no Hub id either (owner/name)")
    return download(name, revision)


def load_model(folder: Path, config: ModelConfig, dtype: str, *, fuse: bool = True) -> SmolVLM:
    """Build the network and fill it from the folder's weight files, strictly.

    Raises:
        ValueError: tensors that are missing, extra or misshaped; all of them are listed.
    """
    model = _filled(folder, config, DTYPES[dtype])
    mx.eval(model.parameters())  # read at once, which is quickest; and evaluated arrays belong to all threads
    if fuse:
        model.language_model.fuse()
    return model


def _filled(folder: Path, config: ModelConfig, dtype: mx.Dtype) -> SmolVLM:
    """The network with lazy weights, to which it holds the only references: fused ones take their place."""
    model, weights = open_checkpoint(folder, config)
    model.load_weights(
        [
            (name, array.astype(dtype) if mx.issubdtype(array.dtype, mx.floating) else array)
            for name, array in weights.items()
        ]
    )
    return model


def open_checkpoint(folder: Path, config: ModelConfig) -> tuple[SmolVLM, dict[str, mx.array]]:
    """The network, unfilled, and lazy weights by MLX-community name that fit it exactly; nothing is read yet.

    Raises:
        ValueError: tensors that are missing, extra or misshaped; all of them are listed.
    """
    tensors = read_index(folder)
    model = SmolVLM(config)
    if config.quantization:
        _quantize_structure(model, config.quantization, tensors)
    parameters: Any = tree_flatten(model.parameters())
    expected = dict(parameters)
    weights = load_tensors(tensors.items())
    if config.tie_word_embeddings and _LM_HEAD in weights:
        # Some tied checkpoints keep a copy of the embeddings as the head; anything else is a contradiction.
        if not mx.array_equal(weights[_LM_HEAD], weights.get(_EMBEDDINGS, mx.array(0))).item():
            raise ValueError(f"{folder}: tie_word_embeddings is true, but lm_head.weight differs from the embeddings")
        del weights[_LM_HEAD]
    _check(folder, expected, weights)
    return model, weights


def _quantize_structure(model: SmolVLM, quantization: dict[str, Any], tensors: dict[str, Any]) -> None:
    """Swap in quantized layers where the file has them: a path with an entry of its own, or with scales."""

    def choice(path: str, module: nn.Module) -> bool | dict[str, Any]:
        if not hasattr(module, "to_quantized"):
            return False
        if path in quantization:
            own: bool | dict[str, Any] = quantization[path]
            return own
        return f"{path}.scales" in tensors

    group_size, bits = quantization["group_size"], quantization["bits"]
    try:
        nn.quantize(model, group_size, bits, mode=quantization.get("mode", "affine"), class_predicate=choice)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"config.json: quantization {quoted(quantization)} cannot be built: {error}") from None


def _check(folder: Path, expected: dict[str, mx.array], found: dict[str, mx.array]) -> None:
    problems = [f"missing {name}" for name in sorted(expected.keys() - found.keys())]
    problems += [f"unexpected {name}" for name in sorted(found.keys() - expected.keys())]
    for name in sorted(expected.keys() & found.keys()):
        if found[name].shape != expected[name].shape:
            problems.append(f"{name} is {found[name].shape}, config.json asks for {expected[name].shape}")
        elif mx.issubdtype(found[name].dtype, mx.floating) != mx.issubdtype(expected[name].dtype, mx.floating):
            problems.append(f"{name} has dtype {found[name].dtype}, expected one like {expected[name].dtype}")
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise ValueError(f"{folder}: the weights do not fit the configuration: {shown}")
