"""Folder or Hub id -> (model, processor). Weights load completely or not at all."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..media.reporting import report
from ..model.adapters.adapter_files import Adapter
from ..model.adapters.attaching import attach
from ..model.checkpoint_folder import check_folder
from ..model.config import RETRIEVER, ModelConfig, read_model_config
from ..model.smolvlm import SmolVLM
from ..model.weights import PATCH_EMBEDDING_WEIGHT, TensorInfo, load_tensors, read_index
from ..options import quoted
from ..processor.added_tokens import check_tokens
from ..processor.processor import Processor, load_processor
from .finding import AdapterSource, find_checkpoint, open_adapters

DEMO_MODEL = Path(__file__).parent.parent / "demo" / "model"
"""Folder of the embedded demo model: a tiny SmolVLM that knows coloured shapes, short numbers and little else."""

DTYPES = {"bfloat16": mx.bfloat16, "float16": mx.float16, "float32": mx.float32}
MAX_VECTOR_SIZE = 4096  # of a retriever; ColSmol has 128
_LM_HEAD = "language_model.lm_head.weight"
_EMBEDDINGS = "language_model.embed_tokens.weight"
_DECODER = "language_model.layers.0."
_SMALL = 2**16  # rows of a matrix that cost nothing to describe
_SIZE_OF_LAYER = _SMALL // 32


def default_dtype() -> str:
    """bfloat16 on a GPU; float32 on the CPU, whose bfloat16 kernels are slow and coarse."""
    return "bfloat16" if mx.default_device() == mx.gpu else "float32"


def load(
    path_or_hub_id: str | Path,
    *,
    adapters: AdapterSource | Sequence[AdapterSource] = (),
    dtype: str | None = None,
    revision: str | None = None,
    fuse: bool = True,
) -> tuple[SmolVLM, Processor]:
    """Load a checkpoint of the family.

    Args:
        path_or_hub_id: a folder, in Hugging Face layout or converted (by this project or by mlx-vlm, quantized
            or not), or the id of a repository on the Hugging Face Hub, downloaded on first use.
        adapters: one adapter or several, of PEFT, mlx-lm or mlx-vlm, to be used without merging: a folder or Hub id,
            or (folder or Hub id, weight). The change of each is multiplied by its weight, and they are added up. A
            tokenizer, chat template or processor files beside an adapter win over the model's. For several to choose
            from, see `AdapterSet`.
        dtype: "bfloat16", "float16" or "float32"; None for `default_dtype()`. Quantized layers keep their codes,
            and compute in this type.
        revision: branch, tag or commit on the Hub; refused with a folder.
        fuse: join matrices for speed (see `LanguageModel.fuse`). Layers are at their paths in the files either way, and
            what is done to them takes effect; False saves the work where all of them are about to change.

    Returns:
        The model, every parameter evaluated (so that any thread may use it), and its processor.

    Raises:
        FileNotFoundError: no such folder, or files are missing from it.
        ValueError: files that are damaged, contradictory or of another kind of model; adapters that are not
            understood, or do not fit.
        ConnectionError: the Hub cannot be reached or refuses.
    """
    return load_checked(path_or_hub_id, refuse_retriever, adapters=adapters, dtype=dtype, revision=revision, fuse=fuse)


def check_dtype(dtype: str | None) -> None:
    """Raise ValueError unless it is the name of a type to compute in, or None."""
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype is {quoted(dtype)}, expected one of {', '.join(DTYPES)}")


def refuse_retriever(folder: Path, config: ModelConfig) -> None:
    """Raise ValueError for a checkpoint that makes no text."""
    if config.is_retriever:
        raise ValueError(
            f"{folder} is a {RETRIEVER} checkpoint: it finds pages and makes no text; use python -m mlx_smolvlm.index "
            "and python -m mlx_smolvlm.search, or load_retriever in Python"
        )


def load_checked(
    path_or_hub_id: str | Path,
    check: Callable[[Path, ModelConfig], None],
    *,
    adapters: AdapterSource | Sequence[AdapterSource] = (),
    dtype: str | None = None,
    revision: str | None = None,
    fuse: bool = True,
) -> tuple[SmolVLM, Processor]:
    """As `load`; `check` refuses a checkpoint that is not of the wanted kind, before its weights are read."""
    check_dtype(dtype)
    opened = open_adapters(adapters)  # which is quick
    report("loading the model")
    folder = find_checkpoint(path_or_hub_id, revision=revision)
    check_folder(folder)
    report("loading the model")
    config = read_model_config(folder)
    check(folder, config)
    processor = load_processor(folder, config, [adapter.folder for adapter, _ in opened])
    model = load_model(folder, config, dtype or default_dtype(), fuse=fuse)
    return with_adapters(model, folder, opened), processor


def with_adapters(model: SmolVLM, folder: Path, adapters: Sequence[tuple[Adapter, float]]) -> SmolVLM:
    """A model with adapters, which shares the arrays of `model`; `folder` is its checkpoint's.

    Raises:
        ValueError: adapters that do not fit the model or each other.
    """
    if not adapters:
        return model
    adapted = attach(model, adapters)
    check_tokens(folder, [adapter for adapter, _ in adapters], adapted.config.text.vocab_size)
    return adapted


def load_model(folder: Path, config: ModelConfig, dtype: str, *, fuse: bool = True, is_lazy: bool = False) -> SmolVLM:
    """Build the network and fill it from the folder's weight files, strictly.

    Args:
        folder, config, dtype, fuse: the checkpoint, and how it is held.
        is_lazy: leave weights on the disk until they are used, in this thread or evaluated in it; without `fuse`.

    Raises:
        ValueError: tensors that are missing, extra or misshaped; all of them are listed.
    """
    model = _filled(folder, config, DTYPES[dtype])
    if not is_lazy:
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
    _check_sizes(folder, config, tensors)
    model = SmolVLM(config, _vector_size(folder, tensors) if config.is_retriever else None)
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


def _check_sizes(folder: Path, config: ModelConfig, tensors: dict[str, TensorInfo]) -> None:
    """Refuse a configuration that asks for far more than the files hold, before anything of that size is built.

    What differs by less is listed by `_check`, with all else that does not fit.
    """
    text, vision = config.text, config.vision
    sizes = {}  # what is asked for -> how much, and how much the files have
    for part, prefix, num_layers in (
        ("text_config", "language_model.layers.", text.num_hidden_layers),
        ("vision_config", "vision_model.encoder.layers.", vision.num_hidden_layers),
    ):
        found = {name.removeprefix(prefix).partition(".")[0] for name in tensors if name.startswith(prefix)}
        sizes[f"{part}: {num_layers} layers"] = (num_layers * _SIZE_OF_LAYER, len(found) * _SIZE_OF_LAYER)
    for what, asked, name in (  # rows of matrices, which quantization does not change, and lengths of vectors
        ("vocab_size", text.vocab_size, _EMBEDDINGS),
        ("text_config: hidden_size", text.hidden_size, "language_model.norm.weight"),
        (
            "text_config: heads * head_dim",
            text.num_attention_heads * text.head_dim,
            f"{_DECODER}self_attn.q_proj.weight",
        ),
        ("num_key_value_heads", text.num_key_value_heads * text.head_dim, f"{_DECODER}self_attn.k_proj.weight"),
        ("text_config: intermediate_size", text.intermediate_size, f"{_DECODER}mlp.gate_proj.weight"),
        ("vision_config: patches", vision.patches_per_side**2, "vision_model.embeddings.position_embedding.weight"),
        ("vision_config: hidden_size", vision.hidden_size, "vision_model.post_layernorm.weight"),
        ("vision_config: intermediate_size", vision.intermediate_size, "vision_model.encoder.layers.0.mlp.fc1.weight"),
    ):
        sizes[f"{what} {asked}"] = (asked, tensors[name].shape[0] if name in tensors and tensors[name].shape else 0)
    patch = tensors.get(PATCH_EMBEDDING_WEIGHT)
    weights = vision.num_channels * vision.patch_size**2
    sizes[f"vision_config: patch_size {vision.patch_size}"] = (weights, math.prod(patch.shape[1:]) if patch else 0)
    problems = [
        f"{what} is asked for, the files have {found // (_SIZE_OF_LAYER if 'layers' in what else 1)}"
        for what, (asked, found) in sizes.items()
        if asked > 4 * found + _SMALL
    ]
    if problems:
        raise ValueError(f"{folder}: the weights do not fit the configuration: {'; '.join(problems)}")


def _vector_size(folder: Path, tensors: dict[str, TensorInfo]) -> int:
    """Width of the vectors of a retriever, which only the weights tell."""
    shape = tensors["linear.weight"].shape if "linear.weight" in tensors else ()
    if len(shape) != 2 or not 0 < shape[0] <= MAX_VECTOR_SIZE:
        found = f"linear.weight is {shape}" if shape else "there is no linear.weight"
        raise ValueError(
            f"{folder}: {found}, but a {RETRIEVER} checkpoint makes its vectors with a layer of that name "
            f"(vector size, hidden size), of at most {MAX_VECTOR_SIZE} rows"
        )
    return shape[0]


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
        listed = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise ValueError(f"{folder}: the weights do not fit the configuration: {listed}")
