"""The files of one adapter -> what it changes, by MLX-community name: PEFT's folders, mlx-lm's and mlx-vlm's.

This is the one reading of adapters, for those that are merged and those that are not. In every format a layer's
update is normed to W + scaling * B A, with A (rank, in) and B (out, rank). PEFT's `fan_in_fan_out` is not read: PEFT
drops it for linear layers.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from ...options import quoted
from ..checkpoint_folder import (
    ADAPTER_CONFIG,
    MLX_ADAPTER_WEIGHTS,
    PEFT_WEIGHTS,
    check_adapter_folder,
    is_mlx_adapter,
)
from ..json_fields import Fields, read_json
from ..weights import PATCH_EMBEDDING_WEIGHT, mlx_name, read_shapes
from .mlx_config import mlx_scaling
from .peft_config import Scaling, check_peft_config, peft_scaling
from .peft_targets import check_targets

_PEFT_PREFIX = "base_model.model."
_PEFT_PIECES = {  # how a tensor's name ends -> what it is to its layer
    ".lora_A.weight": "a",
    ".lora_B.weight": "b",
    ".lora_embedding_A": "embedding_a",
    ".lora_embedding_B": "embedding_b",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
}
_MLX_PIECES = {".lora_a": "a", ".lora_b": "b", ".A": "a", ".B": "b", ".m": "magnitude"}
_MLX_PREFIXES = {  # of a text model alone, or of one wrapped otherwise -> MLX-community
    "language_model.model.": "language_model.",
    "language_model.lm_head.": "language_model.lm_head.",
    "model.layers.": "language_model.layers.",
    "model.embed_tokens.": "language_model.embed_tokens.",
    "model.norm.": "language_model.norm.",
}


@dataclass(frozen=True)
class Update:
    """What an adapter holds for one layer: W + scaling * B A, and with a magnitude each row brought to that length.

    Attributes:
        a: (rank, in).
        b: (out, rank).
        scaling: the factor.
        magnitude: (out,) or None.
    """

    a: mx.array
    b: mx.array
    scaling: float
    magnitude: mx.array | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the weight that it changes."""
        return self.b.shape[0], self.a.shape[1]

    def product(self, start: int = 0, stop: int | None = None) -> mx.array:
        """Rows of scaling * B A, float32."""
        return self.scaling * (self.b[start:stop].astype(mx.float32) @ self.a.astype(mx.float32))


@dataclass(frozen=True)
class Adapter:
    """An opened adapter, as its files say it.

    Attributes:
        folder: where it is.
        is_peft: PEFT's format; otherwise that of mlx-lm and mlx-vlm, whose embeddings are the head's, too, where the
            base ties them. In PEFT, what is learned for one of the two leaves the other as it was.
        updates: by path of the layer.
        replaced: whole tensors to take in place of the base's, by name.
        base, revision: the base model as the files name it, or None.
    """

    folder: Path
    is_peft: bool
    updates: dict[str, Update]
    replaced: dict[str, mx.array]
    base: str | None = None
    revision: str | None = None


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter's folder.

    Raises:
        FileNotFoundError: no adapter, or only one with pickled weights.
        ValueError: damaged files, or a variant that is not understood.
    """
    check_adapter_folder(folder)
    is_peft = not is_mlx_adapter(folder)
    where = folder / ADAPTER_CONFIG
    raw = read_json(where) if where.is_file() else {}
    if is_peft:
        check_peft_config(raw, where)
        file = folder / PEFT_WEIGHTS
        scaling, is_dora = peft_scaling(Fields(raw, str(where))), bool(raw.get("use_dora"))
    else:
        if not raw:
            raise FileNotFoundError(f"{folder} has no {ADAPTER_CONFIG}, which says how its tensors are scaled")
        kind, scaling = mlx_scaling(raw, where)
        file, is_dora = folder / MLX_ADAPTER_WEIGHTS[0], kind == "dora"
    tensors = _read_tensors(file)
    pieces, replaced = (_sort_peft if is_peft else _sort_mlx)(tensors, file)
    if is_peft:
        own_names = [name.removeprefix(_PEFT_PREFIX) for name in tensors if not name.endswith(tuple(_PEFT_PIECES))]
        whole = {name.rpartition(".")[0] for name in own_names if ".base_layer." not in name}
        check_targets(raw, pieces, whole, where)
    updates: dict[str, Update] = {}
    for module, found in pieces.items():
        path = mlx_name(f"{module}.").removesuffix(".")
        _place(updates, path, _update(found, scaling, module, file, is_peft), file)
        if is_dora != ("magnitude" in found):
            kinds = f"use_dora is {quoted(raw.get('use_dora'))}" if is_peft else f"fine_tune_type is {quoted(kind)}"
            raise ValueError(f"{folder}: {kinds}, which does not fit the tensors of {module}")
    _check_weight_tying(raw, folder, [*updates, *replaced])
    base, revision = raw.get("base_model_name_or_path", raw.get("model")), raw.get("revision")
    if not updates and not replaced:
        raise ValueError(f"{file} holds no tensors: an adapter that changes nothing")
    return Adapter(folder, is_peft, updates, replaced, _text(base), _text(revision))


def _read_tensors(file: Path) -> dict[str, mx.array]:
    if not file.is_file():
        pickled = "; pickled weights can run code when read and are refused" if any(file.parent.glob("*.bin")) else ""
        others = [other for other in MLX_ADAPTER_WEIGHTS[1:] if (file.parent / other).is_file()]
        found = f", but {others[0]}, which old versions wrote" if others else ""
        raise FileNotFoundError(f"{file.parent} has no {file.name}{found}{pickled}; save the adapter as safetensors")
    read_shapes(file)  # which checks what MLX does not: overlapping tensors, bytes left over
    try:
        tensors = dict(mx.load(str(file)))  # type: ignore[arg-type]
    except RuntimeError as error:
        raise ValueError(f"{file} cannot be read by MLX: {error}") from None
    for name, array in tensors.items():
        if not mx.issubdtype(array.dtype, mx.floating):
            raise ValueError(f"{file}: {name} has dtype {array.dtype}, expected floating point")
        if not mx.isfinite(array).all().item():
            raise ValueError(f"{file}: {name} holds values that are not finite (NaN or infinity); the training failed")
    return tensors


Pieces = dict[str, dict[str, mx.array]]


def _sort_peft(tensors: dict[str, mx.array], file: Path) -> tuple[Pieces, dict[str, mx.array]]:
    """Pieces of updates by module and kind, and whole tensors by MLX-community name."""
    pieces: Pieces = {}
    replaced: dict[str, mx.array] = {}
    for name, array in tensors.items():
        if not name.startswith(_PEFT_PREFIX):
            raise ValueError(f"{file} holds {name}, which does not begin with {_PEFT_PREFIX!r} as PEFT's names do")
        own_name = name.removeprefix(_PEFT_PREFIX)
        ending = next((ending for ending in _PEFT_PIECES if own_name.endswith(ending)), None)
        if ending is not None:
            module = own_name.removesuffix(ending)
            _place(pieces.setdefault(module, {}), _PEFT_PIECES[ending], array, file, module)
            continue
        full_name = mlx_name(own_name.replace(".base_layer.", ".").replace(".modules_to_save.", "."))
        if full_name == PATCH_EMBEDDING_WEIGHT and array.ndim == 4:
            array = array.transpose(0, 2, 3, 1)  # (out, in, height, width) -> (out, height, width, in)
        _place(replaced, full_name, array, file)
    return pieces, replaced


def _sort_mlx(tensors: dict[str, mx.array], file: Path) -> tuple[Pieces, dict[str, mx.array]]:
    """The same of mlx-lm's and mlx-vlm's names, whose matrices are the transposed ones."""
    pieces: Pieces = {}
    replaced: dict[str, mx.array] = {}
    for name, array in tensors.items():
        prefix = next((prefix for prefix in _MLX_PREFIXES if name.startswith(prefix)), "")
        own_name = _MLX_PREFIXES.get(prefix, "") + name.removeprefix(prefix)
        ending = next((ending for ending in _MLX_PIECES if own_name.endswith(ending)), None)
        if ending is not None:
            module, kind = own_name.removesuffix(ending), _MLX_PIECES[ending]
            _place(pieces.setdefault(module, {}), kind, array if kind == "magnitude" else array.T, file, module)
            continue
        for inner in (".linear.", ".embedding.", ".base_layer."):
            own_name = own_name.replace(inner, ".")
        _place(replaced, mlx_name(own_name), array, file)
    for module, found in pieces.items():
        if module.endswith("embed_tokens") and {"a", "b"} <= found.keys():  # (num_embeddings, rank) and (rank, dims)
            found["a"], found["b"] = found["b"].T, found["a"].T  # so they are no transposed ones
    return pieces, replaced


def _place(places: dict[str, Any], name: str, value: Any, file: Path, module: str = "") -> None:
    if name in places:
        where = f"{name} of {module}" if module else name
        raise ValueError(f"{file}: the adapter holds two tensors for one place: {where}")
    places[name] = value


def _update(found: dict[str, mx.array], scaling: Scaling, module: str, file: Path, is_peft: bool) -> Update:
    found = dict(found)
    is_embedding = "embedding_a" in found or "embedding_b" in found
    if is_embedding and {"embedding_a", "embedding_b"} <= found.keys() and not {"a", "b"} & found.keys():
        embedding_a, embedding_b = found.pop("embedding_a"), found.pop("embedding_b")
        if embedding_a.ndim == embedding_b.ndim == 2:  # the product of the transposed matrices
            found |= {"a": embedding_b.T, "b": embedding_a.T}
    if not {"a", "b"} <= found.keys():
        raise ValueError(f"{file} holds only one of the two LoRA matrices of {module}")
    a, b, magnitude = found["a"], found["b"], found.get("magnitude")
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
        raise ValueError(f"{file}: {a.shape} and {b.shape} of {module} are no LoRA matrices of a linear layer")
    if magnitude is not None and ((is_embedding and is_peft) or magnitude.size != b.shape[0]):
        raise ValueError(f"{file}: the DoRA magnitude of {module} does not fit a linear layer")
    update = Update(a, b, scaling(module, a.shape[0]))
    return update if magnitude is None else replace(update, magnitude=magnitude.reshape(-1))


def _check_weight_tying(raw: dict[str, Any], folder: Path, names: list[str]) -> None:
    if raw.get("ensure_weight_tying") and any("embed_tokens" in name or "lm_head" in name for name in names):
        raise ValueError(
            f"{folder / ADAPTER_CONFIG}: ensure_weight_tying is not supported for embeddings and head; "
            "merge the adapter with PEFT instead"
        )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
