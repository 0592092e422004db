"""LoRA adapters as PEFT saves them, merged into their base one tensor at a time.

The arithmetic is that of peft, `tuners/lora/layer.py` (`get_delta_weight` of `Linear` and `Embedding`) and
`tuners/lora/dora.py`, in float32 and rounded once. `fan_in_fan_out` is not read: PEFT drops it for linear layers.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from tokenizers import Tokenizer

from ..api.loading import find_checkpoint
from ..model.checkpoint_folder import ADAPTER_CONFIG as CONFIG
from ..model.checkpoint_folder import PEFT_WEIGHTS as WEIGHTS
from ..model.checkpoint_folder import check_adapter_folder
from ..model.json_fields import Fields, check_file_size, read_json
from ..model.weights import mlx_name, read_shapes
from ..options import quoted
from ..processor.tokenizer_file import MAX_TOKENIZER_BYTES, tokenizer_errors
from .path_patterns import PathPattern

_PREFIX = "base_model.model."
_BY_TOKEN = ("embed_tokens.weight", "lm_head.weight")  # with a row for each token
_MAX_PATTERNS = 10_000
_MAX_ALPHA = 1e9
_CHUNK_BYTES = 8 * 1024**2
_PIECES = {  # how a tensor's name ends -> what it is to its layer
    ".lora_A.weight": "a",
    ".lora_B.weight": "b",
    ".lora_embedding_A": "a",
    ".lora_embedding_B": "b",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
}
_REFUSED = (  # what makes an adapter mean something else than what is merged here
    *("lora_bias", "layer_replication", "target_parameters", "trainable_token_indices", "use_qalora", "use_bdlora"),
    *("alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config"),
)
_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")  # others change the base weights as well


@dataclass(frozen=True)
class Update:
    """What an adapter holds for one layer: W + scaling * B A, and with a magnitude each row brought to that length."""

    a: mx.array
    b: mx.array
    scaling: float
    magnitude: mx.array | None
    is_embedding: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the weight that it changes."""
        out, width = self.b.shape[0], self.a.shape[1]
        return (width, out) if self.is_embedding else (out, width)

    def rows(self, start: int, stop: int) -> mx.array:
        """Rows of scaling * B A, float32; PEFT's embeddings are the transposed product."""
        a, b = self.a.astype(mx.float32), self.b.astype(mx.float32)
        product = (b @ a[:, start:stop]).T if self.is_embedding else b[start:stop] @ a
        return self.scaling * product


class Adapter:
    """An opened adapter: layers to update and whole tensors to replace, by MLX-community name."""

    def __init__(self, folder: Path, updates: dict[str, Update], replaced: dict[str, mx.array], base: str | None):
        self.folder, self.updates, self.replaced, self.base = folder, updates, replaced, base

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse a base in which a tensor of the adapter has no place.

        Raises:
            ValueError: with the names of all that do not fit.
        """
        added = {
            name: update.shape[0] - shapes[name][0]
            for path, update in self.updates.items()
            if (name := f"{path}.weight").endswith(_BY_TOKEN) and name in shapes
        }
        added |= {
            name: array.shape[0] - shapes[name][0]
            for name, array in self.replaced.items()
            if name.endswith(_BY_TOKEN) and name in shapes
        }
        if any(count > 0 for count in added.values()):
            raise ValueError(
                f"{self.folder} was trained with {max(added.values())} tokens more than this base model has; add them "
                "to the base, merge the adapter with PEFT, and convert what that saves"
            )
        wanted: dict[str, tuple[int, ...]] = {f"{path}.weight": update.shape for path, update in self.updates.items()}
        wanted |= {name: tuple(array.shape) for name, array in self.replaced.items()}
        problems = [
            f"{name} is {shapes.get(name, 'missing')}, the adapter's is {shape}"
            for name, shape in sorted(wanted.items())
            if shapes.get(name) != shape
        ]
        if problems:
            more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
            raise ValueError(f"{self.folder} does not fit this base model: {'; '.join(problems[:4])}{more}")

    def check_tokens(self, base: Path) -> None:
        """Refuse an adapter whose own tokenizer, if it has one, knows other tokens than that of the base.

        Embeddings are often padded, so that tokens can be added within them, and no shape tells.

        Raises:
            ValueError: with the names of the tokens.
        """
        own, known = (_vocabulary(folder / "tokenizer.json") for folder in (self.folder, base))
        if own is None or known is None or own == known:
            return
        others = sorted(token for token, token_id in own.items() if known.get(token) != token_id)
        if others:
            names = ", ".join(quoted(token, 40) for token in others[:4])
            more = f" and {len(others) - 4} more" if len(others) > 4 else ""
            raise ValueError(
                f"{self.folder} was trained with a tokenizer that has other tokens than the base's ({names}{more}); "
                "merge it with PEFT, save the tokenizer beside it, and convert that folder"
            )

    def merge(self, name: str, array: mx.array) -> mx.array:
        """A tensor of the base with the adapter's change, in the base's dtype."""
        array = self.replaced.get(name, array).astype(array.dtype)
        update = self.updates.get(name.removesuffix(".weight")) if name.endswith(".weight") else None
        if update is None:
            return array
        rows = max(1, _CHUNK_BYTES // array[0].nbytes)
        chunks = []
        for start in range(0, array.shape[0], rows):
            chunk = array[start : start + rows].astype(mx.float32) + update.rows(start, start + rows)
            if update.magnitude is not None:
                norm = mx.linalg.norm(chunk, axis=1)
                chunk *= (update.magnitude[start : start + rows].astype(mx.float32) / norm)[:, None]
            chunks.append(chunk.astype(array.dtype))
            mx.eval(chunks[-1])
        return mx.concatenate(chunks)


def _vocabulary(path: Path) -> dict[str, int] | None:
    """A tokenizer's tokens with their numbers; None if there is none."""
    if not path.is_file():
        return None
    check_file_size(path, MAX_TOKENIZER_BYTES)
    with tokenizer_errors(f"{path} is not a tokenizer"):
        vocabulary: dict[str, int] = Tokenizer.from_file(str(path)).get_vocab()
    return vocabulary


def open_adapter(path_or_hub_id: str | Path) -> Adapter:
    """Open a folder or a Hub id with `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        FileNotFoundError: no such adapter, or only one with pickled weights.
        ValueError: no LoRA, or a variant whose merge is not implemented.
        ConnectionError: the Hub cannot be reached or refuses.
    """
    folder = find_checkpoint(path_or_hub_id)
    check_adapter_folder(folder)
    raw = read_json(folder / CONFIG)
    fields = Fields(raw, str(folder / CONFIG))
    _check_variant(raw, folder)
    if not (folder / WEIGHTS).is_file():
        pickled = "; pickled weights can run code when read and are refused" if any(folder.glob("*.bin")) else ""
        raise FileNotFoundError(f"{folder} has no {WEIGHTS}{pickled}; save the adapter with PEFT as safetensors")
    read_shapes(folder / WEIGHTS)  # which checks what MLX does not: overlapping tensors, bytes left over
    try:
        tensors = dict(mx.load(str(folder / WEIGHTS)))  # type: ignore[arg-type]
    except RuntimeError as error:
        raise ValueError(f"{folder / WEIGHTS} cannot be read by MLX: {error}") from None
    pieces: dict[str, dict[str, mx.array]] = {}
    replaced: dict[str, mx.array] = {}
    embeddings = set()
    for name, array in tensors.items():
        if not name.startswith(_PREFIX):
            raise ValueError(
                f"{folder / WEIGHTS} holds {name}, which does not begin with {_PREFIX!r} as PEFT's names do"
            )
        if not mx.issubdtype(array.dtype, mx.floating):
            raise ValueError(f"{folder / WEIGHTS}: {name} has dtype {array.dtype}, expected floating point")
        own_name = name.removeprefix(_PREFIX)
        ending = next((ending for ending in _PIECES if own_name.endswith(ending)), None)
        if ending is None:  # of modules_to_save
            _place(replaced, mlx_name(own_name.replace(".base_layer.", ".").replace(".modules_to_save.", ".")), array)
            continue
        module = own_name.removesuffix(ending)
        _place(pieces.setdefault(module, {}), _PIECES[ending], array, module)
        if "embedding" in ending:
            embeddings.add(module)
    scaling = _scaling(fields)
    updates: dict[str, Update] = {}
    for module, found in pieces.items():
        path = mlx_name(f"{module}.").removesuffix(".")
        _place(updates, path, _update(found, scaling, module, module in embeddings, folder))
        if bool(raw.get("use_dora")) != ("magnitude" in found):
            raise ValueError(
                f"{folder}: use_dora is {quoted(raw.get('use_dora'))}, which does not fit the tensors of {module}"
            )
    base = raw.get("base_model_name_or_path")
    return Adapter(folder, updates, replaced, base if isinstance(base, str) and base else None)


def _place(places: dict[str, Any], name: str, value: Any, module: str = "") -> None:
    if name in places:
        raise ValueError(f"the adapter holds two tensors for one place: {f'{name} of {module}' if module else name}")
    places[name] = value


def _check_variant(raw: dict[str, Any], folder: Path) -> None:
    if raw.get("peft_type") != "LORA":
        raise ValueError(f"{folder / CONFIG}: peft_type is {quoted(raw.get('peft_type'))}, only 'LORA' can be merged")
    for field in _REFUSED:
        if raw.get(field):
            raise ValueError(f"{folder / CONFIG}: {field} is not supported; merge the adapter with PEFT instead")
    if raw.get("bias", "none") != "none" or raw.get("init_lora_weights") not in _PLAIN_STARTS:
        field = "bias" if raw.get("bias", "none") != "none" else "init_lora_weights"
        raise ValueError(
            f"{folder / CONFIG}: {field} {quoted(raw[field])} is not supported; merge the adapter with PEFT instead"
        )


def _scaling(fields: Fields) -> Callable[[str, int], float]:
    """A function from a module's path and the rank found in the file to the factor of its product."""
    rank, alpha = fields.positive("r"), fields.get("lora_alpha", float)
    ranks, alphas = fields.section("rank_pattern", {}), fields.section("alpha_pattern", {})
    use_rslora = fields.get("use_rslora", bool, False)

    if len(ranks) + len(alphas) > _MAX_PATTERNS:
        raise ValueError(f"{fields.where}: {len(ranks) + len(alphas)} patterns, the limit is {_MAX_PATTERNS}")
    compiled: dict[str, PathPattern] = {}

    def of_pattern(patterns: dict[str, Any], module: str, default: Any) -> Any:
        """The first pattern that matches the end of a path, as in peft, `utils/other.py` (`get_pattern_key`)."""
        for pattern, value in patterns.items():
            if pattern == module or module.endswith(f".{pattern}"):  # as PEFT itself writes them
                return value
            if pattern.isidentifier():  # plain text that is no end of this path
                continue
            try:
                if pattern not in compiled:
                    compiled[pattern] = PathPattern(pattern)
                if compiled[pattern].matches_end(module):
                    return value
            except ValueError as error:
                raise ValueError(
                    f"{fields.where}: {quoted(pattern)} is no regular expression that can be used: {error}"
                ) from None
        return default

    def scaling(module: str, found_rank: int) -> float:
        expected = of_pattern(ranks, module, rank)
        if expected != found_rank:
            raise ValueError(
                f"{fields.where}: rank {quoted(expected)} is stated for {module}, but its matrices have {found_rank}"
            )
        factor = of_pattern(alphas, module, alpha)
        if type(factor) not in (int, float) or not abs(factor) < _MAX_ALPHA:  # so written that NaN does not pass
            raise ValueError(
                f"{fields.where}: lora_alpha or alpha_pattern is {quoted(factor)} for {module}, "
                f"expected a number below {_MAX_ALPHA:g}"
            )
        return float(factor) / (math.sqrt(found_rank) if use_rslora else found_rank)

    return scaling


def _update(
    found: dict[str, mx.array], scaling: Callable[[str, int], float], module: str, is_embedding: bool, folder: Path
) -> Update:
    if not {"a", "b"} <= found.keys():
        raise ValueError(f"{folder / WEIGHTS} holds only one of the two LoRA matrices of {module}")
    a, b, magnitude = found["a"], found["b"], found.get("magnitude")
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
        raise ValueError(
            f"{folder / WEIGHTS}: {a.shape} and {b.shape} of {module} are no LoRA matrices of a linear layer"
        )
    if magnitude is not None and (is_embedding or magnitude.size != b.shape[0]):
        raise ValueError(f"{folder / WEIGHTS}: the DoRA magnitude of {module} does not fit a linear layer")
    flat = None if magnitude is None else magnitude.reshape(-1)
    return Update(a, b, scaling(module, a.shape[0]), flat, is_embedding)
