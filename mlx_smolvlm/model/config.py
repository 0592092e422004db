"""Checkpoint files -> frozen dataclasses. The one place where a default stands in for a missing field.

Released checkpoints leave fields out of `config.json`, and the defaults of the transformers classes fit
none of them. A missing field is filled in only where the rest of the file leaves one choice (the tables
below, keyed by hidden size); anything else that is missing is an error that names file and field.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..options import quoted
from .json_fields import Fields, read_json

MODEL_TYPES = ("smolvlm", "idefics3")
RETRIEVER = "ColIdefics3"  # the architecture of ColSmol, as colpali-engine names it

# What released files omit: SigLIP base and SO400M, and the SmolLM2 / Llama decoders, by hidden size.
_VISION_DEFAULTS = {
    768: {"num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    1152: {"num_hidden_layers": 27, "num_attention_heads": 16, "intermediate_size": 4304},
}
_TEXT_DEFAULTS = {
    576: {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536},
    960: {"num_hidden_layers": 32, "num_attention_heads": 15, "num_key_value_heads": 5, "intermediate_size": 2560},
    2048: {"num_hidden_layers": 24, "num_attention_heads": 32, "num_key_value_heads": 32, "intermediate_size": 8192},
    4096: {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336},
}
_OMITTED_HIDDEN_SIZES = {4304: 1152, 14336: 4096}  # by intermediate_size: SigLIP SO400M, Llama 3 8B
# The same in every member of the family.
_VISION_COMMON = {"num_channels": 3, "layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh"}
_TEXT_COMMON = {"rms_norm_eps": 1e-5, "hidden_act": "silu", "attention_bias": False, "mlp_bias": False}


@dataclass(frozen=True)
class VisionConfig:
    """SigLIP encoder. `image_size` and `patch_size` are in pixels; images are square tiles."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int
    patch_size: int
    num_channels: int
    layer_norm_eps: float

    @property
    def patches_per_side(self) -> int:
        """Whole patches along a tile's side; pixels beyond the last whole patch are not seen."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3's frequency scaling: long wavelengths are stretched by `factor`."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True)
class TextConfig:
    """SmolLM2 / Llama decoder. `max_position_embeddings` is the context length in tokens."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None = None


@dataclass(frozen=True)
class ModelConfig:
    """Everything `config.json` (and `generation_config.json`) says about one checkpoint.

    `quantization` is MLX's entry, `{"group_size", "bits", "mode", "<layer path>": {...} | false}`, or None.
    `is_retriever` is true of ColIdefics3 checkpoints: no head, but a layer that makes a vector of each token.
    """

    model_type: str
    vision: VisionConfig
    text: TextConfig
    scale_factor: int
    image_token_id: int
    tie_word_embeddings: bool
    eos_token_ids: tuple[int, ...]
    quantization: dict[str, Any] | None = None
    is_retriever: bool = False

    @property
    def image_seq_len(self) -> int:
        """Image tokens per tile: one for each scale_factor x scale_factor block of patches."""
        return (self.vision.patches_per_side // self.scale_factor) ** 2


def read_model_config(folder: Path) -> ModelConfig:
    """Read `config.json` and, for the end tokens, `generation_config.json`.

    Raises:
        FileNotFoundError: no `config.json`.
        ValueError: unknown `model_type`, or a field that is missing, of the wrong kind or contradictory.
    """
    path = folder / "config.json"
    raw = read_json(path)
    model_type = raw.get("model_type")
    if model_type not in MODEL_TYPES:
        raise ValueError(f"{path}: model_type is {quoted(model_type)}, supported are {' and '.join(MODEL_TYPES)}")
    fields = Fields(raw, str(path))
    is_retriever = _is_retriever(raw, path)
    raw_text = fields.section("text_config")
    vision = _vision_config(fields.section("vision_config"), f"{path}, vision_config")
    text = _text_config(raw_text, f"{path}, text_config")
    scale_factor = fields.positive("scale_factor")
    if vision.patches_per_side % scale_factor or not vision.patches_per_side:
        raise ValueError(
            f"{path}: {vision.patches_per_side} patches per side cannot be folded by scale_factor {scale_factor}"
        )
    return ModelConfig(
        model_type=model_type,
        vision=vision,
        text=text,
        scale_factor=scale_factor,
        image_token_id=fields.get("image_token_id", int),
        tie_word_embeddings=not is_retriever  # which has no head
        and fields.get("tie_word_embeddings", bool, raw_text.get("tie_word_embeddings") or False),
        eos_token_ids=_eos_token_ids(folder, raw, raw_text),
        quantization=_quantization(raw, path),
        is_retriever=is_retriever,
    )


def _is_retriever(raw: dict[str, Any], path: Path) -> bool:
    """Whether `architectures` names a model that makes vectors; their tensors are not those of one that answers."""
    names = raw.get("architectures")
    names = names if isinstance(names, list) else []
    if "BiIdefics3" in names:
        raise ValueError(
            f"{path}: BiIdefics3 makes one vector for a whole page, which is not supported; "
            f"use a {RETRIEVER} checkpoint"
        )
    if RETRIEVER in names and raw.get("mask_non_image_embeddings"):
        raise ValueError(f"{path}: mask_non_image_embeddings is not supported, which leaves out words of the prompt")
    return RETRIEVER in names


def _vision_config(raw: dict[str, Any], where: str) -> VisionConfig:
    hidden_size = _hidden_size(raw, where)
    fields = Fields(raw, where, {**_VISION_COMMON, **_VISION_DEFAULTS.get(hidden_size, {})})
    fields.require("hidden_act", "gelu_pytorch_tanh", default="gelu_pytorch_tanh")
    heads = fields.positive("num_attention_heads")
    if hidden_size % heads:
        raise ValueError(f"{where}: hidden_size {hidden_size} is not divisible by num_attention_heads {heads}")
    return VisionConfig(
        hidden_size=hidden_size,
        intermediate_size=fields.positive("intermediate_size"),
        num_hidden_layers=fields.positive("num_hidden_layers"),
        num_attention_heads=heads,
        image_size=fields.side("image_size"),
        patch_size=fields.side("patch_size"),
        num_channels=fields.positive("num_channels"),
        layer_norm_eps=fields.positive("layer_norm_eps", float),
    )


def _text_config(raw: dict[str, Any], where: str) -> TextConfig:
    hidden_size = _hidden_size(raw, where)
    fields = Fields(raw, where, {**_TEXT_COMMON, **_TEXT_DEFAULTS.get(hidden_size, {})})
    for name in ("hidden_act", "attention_bias", "mlp_bias"):
        fields.require(name, _TEXT_COMMON[name], default=_TEXT_COMMON[name])
    heads = fields.positive("num_attention_heads")
    kv_heads = fields.positive("num_key_value_heads", default=heads)
    head_dim = fields.positive("head_dim", default=hidden_size // heads)
    if heads % kv_heads:
        raise ValueError(f"{where}: num_attention_heads {heads} is not divisible by num_key_value_heads {kv_heads}")
    rope_theta, rope_scaling = _rope(raw, where)
    return TextConfig(
        vocab_size=fields.positive("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=fields.positive("intermediate_size"),
        num_hidden_layers=fields.positive("num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=fields.positive("max_position_embeddings"),
        rms_norm_eps=fields.positive("rms_norm_eps", float),
        rope_theta=rope_theta,
        rope_scaling=rope_scaling,
    )


def _hidden_size(raw: dict[str, Any], where: str) -> int:
    """Stated, or where it equals a class default, and so is left out, known from the MLP's width."""
    known = _OMITTED_HIDDEN_SIZES.get(raw["intermediate_size"]) if type(raw.get("intermediate_size")) is int else None
    return Fields(raw, where).positive("hidden_size", default=known)


def _rope(raw: dict[str, Any], where: str) -> tuple[float, RopeScaling | None]:
    """`rope_theta` and `rope_scaling` (transformers 4), or both within `rope_parameters` (transformers 5)."""
    fields = Fields(raw, where)
    parameters = fields.section("rope_parameters", {})
    theta = Fields({"rope_theta": parameters.get("rope_theta", raw.get("rope_theta"))}, where)
    scaling = fields.section("rope_scaling", parameters)
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return theta.positive("rope_theta", float), None
    if kind != "llama3":
        raise ValueError(f"{where}: rope_type is {quoted(kind)}, supported are 'default' and 'llama3'")
    fields = Fields(scaling, f"{where}, rope scaling")
    low, high = fields.positive("low_freq_factor", float), fields.positive("high_freq_factor", float)
    if low >= high:
        raise ValueError(f"{where}: low_freq_factor {low} is not below high_freq_factor {high}")
    return theta.positive("rope_theta", float), RopeScaling(
        factor=fields.positive("factor", float),
        low_freq_factor=low,
        high_freq_factor=high,
        original_max_position_embeddings=fields.positive("original_max_position_embeddings"),
    )


def _quantization(raw: dict[str, Any], path: Path) -> dict[str, Any] | None:
    """MLX's entry; the copy under `quantization_config` is where transformers looks, in other formats too."""
    name = "quantization" if raw.get("quantization") else "quantization_config"
    entry = Fields(raw, str(path)).section(name, {})
    if not entry:
        return None
    if not {"group_size", "bits"} <= entry.keys() or entry.get("quant_method"):  # which MLX does not write
        method = entry.get("quant_method", "unknown")
        raise ValueError(
            f"{path}: weights quantized by {quoted(method)} cannot be read; convert the original checkpoint"
        )
    layers = {layer: choice for layer, choice in entry.items() if isinstance(choice, dict)}
    for layer, choice in {name: entry, **layers}.items():  # MLX itself divides by zero
        fields = Fields(choice, f"{path}, {layer[:100]}")
        fields.positive("group_size")
        fields.positive("bits")
        fields.get("mode", str, "affine")
    return entry


def _eos_token_ids(folder: Path, raw: dict[str, Any], raw_text: dict[str, Any]) -> tuple[int, ...]:
    """`eos_token_id` of `generation_config.json`, else of `config.json`: a number or a list."""
    path = folder / "generation_config.json"
    sources = [(path, read_json(path))] if path.is_file() else []
    for file, source in [*sources, (folder / "config.json", raw), (folder / "config.json", raw_text)]:
        value = source.get("eos_token_id")
        if value is not None:
            ids = value if isinstance(value, list) else [value]
            if not all(type(token) is int for token in ids):
                raise ValueError(f"{file}: eos_token_id is {quoted(value)}, expected a number or a list of numbers")
            return tuple(ids)
    return ()  # `<end_of_utterance>`, known by name, still ends an answer
