"""A loaded model and a recipe -> the model with what is trained in it, by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ...model.adapters.adapter_files import Adapter, Update, read_adapter
from ...model.adapters.attaching import dense_weight, head_of, layer_shapes, put_layer, replace_array
from ...model.adapters.changes import EMBEDDINGS, HEAD, Changes
from ...model.checkpoint_folder import ADAPTER_CONFIG
from ...model.json_fields import read_json
from ...model.smolvlm import SmolVLM
from ...options import quoted
from ..recipe import DEFAULT_RANK, Recipe, flag
from .low_rank import LowRankEmbedding, LowRankLinear, Noise, key_of
from .targets import CONNECTOR, TEXT, VISION, default_targets, hf_path, named_targets, part_of_path

_KINDS = ("lora_a", "lora_b", "magnitude")
_QUANTIZED = (nn.QuantizedLinear, nn.QuantizedEmbedding)


class Trainable:
    """A model, some of whose arrays are trained; the others stay as they are.

    Attributes:
        model: with low-rank layers in the places of those that are adapted.
        parameters: what is trained, float32, by MLX-community name: `PATH.lora_a` (rank, in), `PATH.lora_b` (out,
            rank), `PATH.magnitude` (out,) of a layer's change, and whole tensors under their names.
        noise: the dropout of its layers.
        method: one of `METHODS`.
        settings: fields of PEFT's configuration that say how the change is scaled; empty for full training.
        parts: of the network, that are trained, see `targets.py`.
    """

    def __init__(self, model: SmolVLM, recipe: Recipe, init_folder: Path | None = None):
        """Change the model in place for a recipe.

        Args:
            model: loaded with `fuse=False`.
            recipe: what to train.
            init_folder: where `init_adapter` of the recipe is.

        Raises:
            ValueError: targets, an adapter or a method that do not fit the model.
            FileNotFoundError: no adapter where the recipe names one.
        """
        self.model = model
        self.noise = Noise(recipe.dropout)
        self.parameters: dict[str, mx.array] = {}
        self.settings: dict[str, Any] = {}
        self.init_folder = init_folder
        self._scalings: dict[str, float] = {}
        self._untrained: dict[str, mx.array] = {}  # whole tensors of an adapter that is continued
        self._dtype = model.language_model.norm.weight.dtype
        if init_folder is not None:
            self.method = self._continue(recipe, init_folder)
        elif recipe.method == "full":
            self.method = "full"
            self._train_whole_parts(recipe)
        else:
            self.method = recipe.method or "lora"
            self._begin(recipe)
        self._places = _places(model, self.parameters)
        self.parts = frozenset(part_of_path(name) for name in self.parameters)
        mx.eval(self.parameters)
        self.put(self.parameters)

    @property
    def num_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(array.size for array in self.parameters.values())

    @property
    def encoder_is_frozen(self) -> bool:
        """Whether image features never change: neither the encoder nor the connector is trained."""
        return not self.parts & {VISION, CONNECTOR}

    def put(self, arrays: Mapping[str, mx.array]) -> None:
        """Put arrays in the places of parameters: whole tensors in the type in which the network computes."""
        for name, array in arrays.items():
            module, key = self._places[name]
            module[key] = array if key in _KINDS else array.astype(self._dtype)

    def within(self, path: str) -> dict[str, mx.array]:
        """The arrays now in the places of the parameters of a block."""
        places = {name: place for name, place in self._places.items() if name.startswith(f"{path}.")}
        return {name: module[key] for name, (module, key) in places.items()}

    def place_back(self, arrays: Mapping[str, mx.array]) -> None:
        """Put in again what `within` gave, or tracers of it."""
        for name, array in arrays.items():
            module, key = self._places[name]
            module[key] = array

    def adapter(self, base: str | None) -> Adapter:
        """What is trained, as the adapter that `model/adapters/` knows."""
        paths = dict.fromkeys(name.rpartition(".")[0] for name in self.parameters if name.endswith(".lora_a"))
        of = self.parameters
        updates = {
            path: Update(of[f"{path}.lora_a"], of[f"{path}.lora_b"], self._scalings[path], of.get(f"{path}.magnitude"))
            for path in paths
        }
        whole = {name: array for name, array in of.items() if name.rpartition(".")[2] not in _KINDS}
        return Adapter(Path(), True, updates, whole | self._untrained, base)

    def _train_whole_parts(self, recipe: Recipe) -> None:
        layers = dict(self.model.named_modules())
        quantized = next((path for path, layer in layers.items() if isinstance(layer, _QUANTIZED)), None)
        if quantized is not None:
            raise ValueError(
                f"--method full trains the weights themselves, and {quantized} is quantized; train an adapter "
                "(lora, dora or rslora), or take the checkpoint that this one was made from"
            )
        parts = [TEXT, *([VISION] if recipe.train_vision else []), *([CONNECTOR] if recipe.train_connector else [])]
        arrays: Any = tree_flatten(self.model.parameters())
        self.parameters = {name: array.astype(mx.float32) for name, array in arrays if name.startswith(tuple(parts))}

    def _begin(self, recipe: Recipe) -> None:
        """A new adapter, which changes nothing yet."""
        layers = {path: layer for path, layer in self.model.named_modules() if path}
        if HEAD not in layers:
            layers[HEAD] = head_of(layers[EMBEDDINGS])
        chosen = (
            named_targets(layers, recipe.targets)
            if recipe.targets
            else default_targets(layers, recipe.train_vision, recipe.train_connector)
        )
        rank = recipe.rank or DEFAULT_RANK
        alpha = rank if recipe.alpha is None else recipe.alpha
        is_dora, is_rslora = self.method == "dora", self.method == "rslora"
        self.settings = {
            "r": rank,
            "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
            "use_dora": is_dora,
            "use_rslora": is_rslora,
        }
        if is_dora and EMBEDDINGS in chosen:
            raise ValueError("--method dora has no form for embed_tokens in PEFT; leave it out of --target")
        for path in chosen:
            shape = _shape(layers[path])
            if rank > min(shape):
                raise ValueError(
                    f"--rank is {rank}, but {hf_path(path)} is {shape[0]} x {shape[1]}: at most {min(shape)} is of use"
                )
            a, b = _new_matrices(path, shape, rank, recipe.seed)
            magnitude = mx.linalg.norm(dense_weight(layers[path]).astype(mx.float32), axis=1) if is_dora else None
            self._adapt(path, layers[path], Update(a, b, alpha / (rank**0.5 if is_rslora else rank), magnitude))

    def _adapt(self, path: str, layer: nn.Module, update: Update) -> None:
        """Put a low-rank layer around one."""
        self._scalings[path] = update.scaling
        found = {"lora_a": update.a, "lora_b": update.b, "magnitude": update.magnitude}
        arrays = {kind: mx.contiguous(array).astype(mx.float32) for kind, array in found.items() if array is not None}
        self.parameters |= {f"{path}.{kind}": array for kind, array in arrays.items()}
        a, b = arrays["lora_a"], arrays["lora_b"]
        around: nn.Module
        if path == EMBEDDINGS:
            around = LowRankEmbedding(layer, a, b, update.scaling)
        else:
            around = LowRankLinear(layer, a, b, update.scaling, arrays.get("magnitude"), path, self.noise)
        put_layer(self.model, path, around)

    def _continue(self, recipe: Recipe, folder: Path) -> str:
        """Train on with an adapter of PEFT's; returns its method."""
        adapter = read_adapter(folder)
        if not adapter.is_peft:
            raise ValueError(
                f"{folder} is an adapter of mlx-lm or mlx-vlm; write it in PEFT's format first: "
                f"python -m mlx_smolvlm.convert --adapter-path {folder} --export-adapter OUT"
            )
        raw = read_json(folder / ADAPTER_CONFIG)
        method = "dora" if raw.get("use_dora") else "rslora" if raw.get("use_rslora") else "lora"
        _check_continued(recipe, raw, method, folder)
        absent = {"use_dora": False, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {}}
        given = {name: raw[name] for name in ("r", "lora_alpha", *absent) if raw.get(name) is not None}
        self.settings = absent | given  # all together, as each is to be read with the others
        layers = {path: layer for path, layer in self.model.named_modules() if path}
        changes = Changes([(adapter, 1.0)], layer_shapes(layers), HEAD not in layers)
        if changes.vocab_size != self.model.config.text.vocab_size:
            raise ValueError(
                f"{folder} was trained with added tokens, which cannot be continued; merge it first "
                "(python -m mlx_smolvlm.convert --adapter-path) and train the merged checkpoint"
            )
        if HEAD in {name.rpartition(".")[0] for name in changes.names} and HEAD not in layers:
            layers[HEAD] = self.model.language_model["lm_head"] = head_of(layers[EMBEDDINGS])
        for name, array in adapter.replaced.items():
            path, _, key = name.rpartition(".")
            replace_array(self.model, path, layers[path], key, array)
            if path in adapter.updates:  # PEFT saves what is below the change of a head or embeddings, untrained
                self._untrained[name] = array
            else:
                self.parameters[name] = array.astype(mx.float32)
        layers |= {path: layer for path, layer in self.model.named_modules() if path}  # quantized ones were replaced
        for path, update in adapter.updates.items():
            self._adapt(path, layers[path], update)
        _check_continued_targets(recipe, layers, list(adapter.updates), folder)
        return method


def _places(model: SmolVLM, names: Mapping[str, Any]) -> dict[str, tuple[nn.Module, str]]:
    modules = dict(model.named_modules())
    split = ((name, *name.rpartition(".")[::2]) for name in names)
    return {name: (modules[path], key) for name, path, key in split}


def _shape(layer: nn.Module) -> tuple[int, int]:
    """(out, in) of what a layer's weight stands for."""
    rows, width = layer["weight"].shape
    return rows, width * 32 // layer.bits if isinstance(layer, _QUANTIZED) else width


def _new_matrices(path: str, shape: tuple[int, int], rank: int, seed: int) -> tuple[mx.array, mx.array]:
    """A and B of a change that is zero, distributed as PEFT's."""
    rows, width = shape
    key = key_of(f"{seed} {path}")
    if path == EMBEDDINGS:
        a = mx.random.normal((rank, width), key=key)
    else:
        bound = width**-0.5
        a = mx.random.uniform(-bound, bound, (rank, width), key=key)
    return a, mx.zeros((rows, rank))


def _check_continued(recipe: Recipe, raw: Mapping[str, Any], method: str, folder: Path) -> None:
    """Refuse options that an adapter which is continued has otherwise."""
    own = {"method": method, "rank": raw.get("r"), "alpha": raw.get("lora_alpha")}
    for name, value in own.items():
        given = getattr(recipe, name)
        if given is not None and given != value:
            raise ValueError(
                f"{flag(name)} is {quoted(given)}, but {folder}, which is continued, has {quoted(value)}; leave it out"
            )


def _check_continued_targets(recipe: Recipe, layers: Mapping[str, nn.Module], own: list[str], folder: Path) -> None:
    """Refuse names of other layers than the adapter has."""
    if not (recipe.targets or recipe.train_vision or recipe.train_connector):
        return
    named = set(
        named_targets(layers, recipe.targets)
        if recipe.targets
        else default_targets(layers, recipe.train_vision, recipe.train_connector)
    )
    others = sorted(named ^ set(own))
    if others:
        what = "adapts" if others[0] in own else "does not adapt"
        given = "--target" if recipe.targets else "--train-vision or --train-connector"
        raise ValueError(
            f"{given} names other layers than {folder}, which is continued and {what} {hf_path(others[0])}; "
            "leave it out"
        )
